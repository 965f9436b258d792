"""What is asked for: the configuration, its options, and what is checked and planned before anything starts."""
