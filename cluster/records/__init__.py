"""A run's records: metrics, events and state, and what is read from them."""
