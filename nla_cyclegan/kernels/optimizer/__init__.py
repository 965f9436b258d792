"""Adam, Nadam and the moving average of the weights, each in one launch for all parameters."""
