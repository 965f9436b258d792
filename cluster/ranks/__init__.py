"""One rank of a group: the process group, the clock, its progress for the watchdog, and requests to stop."""
