"""Sweeps over configurations of a run: Ray Tune trains the trials, storage keeps them."""
