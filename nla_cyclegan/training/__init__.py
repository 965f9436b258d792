"""One training step: players, losses, image pool, optimizers, EMA."""
