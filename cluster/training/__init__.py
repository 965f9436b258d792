"""What every rank executes: the training loop, its guards and its data faults."""
