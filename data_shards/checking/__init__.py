"""Shards read from the first byte to the last: what is bad in ours, what is in somebody else's."""
