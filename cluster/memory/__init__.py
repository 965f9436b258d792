"""Copies of a run's state in its machines' memory, from which a group continues after losing a worker or a machine."""
