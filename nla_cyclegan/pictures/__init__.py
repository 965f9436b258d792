"""Picture grids and attention maps drawn over images."""
