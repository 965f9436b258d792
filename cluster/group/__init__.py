"""A worker group of Ray Train: started, watched, resized, stopped, and started again when it fails."""
