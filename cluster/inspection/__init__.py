"""Reads a run's folder again, whoever wrote it and whether or not it still trains."""
