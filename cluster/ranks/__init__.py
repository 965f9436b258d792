"""One rank of a group: the process group, the clock, the pulse for the watchdog, and requests to stop."""
