"""What every rank does: the loop, what stops it, and how a run is put together around it."""
