"""The machines of a cluster: Ray's session on them, their resources, and the workers that a run gets."""
