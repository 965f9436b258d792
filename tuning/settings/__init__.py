"""What is asked for: the sweep's configuration, its options, and the plan that follows from them."""
