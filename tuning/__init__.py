"""Sweeps over configurations of a run: Ray Tune trains the trials, storage keeps them."""

from data_shards.version import __version__ as __version__
