"""Sending runs and sweeps to a cluster as Ray jobs, and following them."""
