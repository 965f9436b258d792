"""A packed dataset: its manifest, its index, and the order in which its samples are read."""
