"""When a run is saved, what is in a checkpoint, how it lies in storage."""
