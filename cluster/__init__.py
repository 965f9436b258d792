"""The training loop, and everything about many machines: Ray Train, checkpoints, job submission."""
