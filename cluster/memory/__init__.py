"""Copies of a run's state in the memory of its machines: from there a group goes on when it has lost a worker or a machine."""
