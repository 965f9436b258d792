"""Processes that start at once: forks of one that has imported everything, one of those on each machine of a run."""
