"""What `evaluate` does: which files, at what size, within which memory, pass by pass."""
