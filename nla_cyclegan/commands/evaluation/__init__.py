"""The parts of `evaluate`: files, sizes, memory, and the passes over the images."""
