"""The worker group: what is asked for, on which machines, what these have, and what is chosen."""
