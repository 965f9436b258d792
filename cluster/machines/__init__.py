"""Many machines: Ray, its workers, and what is done when they fail."""
