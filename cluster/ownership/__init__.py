"""Ownership of a run's folder: of all processes that train under one name, at most one writes."""
