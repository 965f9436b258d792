"""Processes that start quickly: forks of a server, one per machine of a run, that has imported everything."""
