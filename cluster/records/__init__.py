"""A run's records: metrics, events and state."""
