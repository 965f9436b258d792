"""What moves the weights: gradients of all ranks, loss scale, Nadam and Adam, learning rate schedule, EMA."""
