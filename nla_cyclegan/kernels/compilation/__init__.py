"""The kernels of a step compiled ahead of it, in other processes."""
