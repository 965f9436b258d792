"""A dataset as an endless stream of training batches, the same for every number of readers."""
