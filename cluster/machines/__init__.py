"""The machines of a cluster: Ray's session on them, what they have, and what a run can get of it."""
