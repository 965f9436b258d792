"""What is computed from a sweep."""
