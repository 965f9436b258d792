"""The training loop, and everything about many machines: Ray Train, checkpoints, job submission."""

from data_shards.version import __version__ as __version__
