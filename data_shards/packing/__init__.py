"""Image folders -> shards."""
