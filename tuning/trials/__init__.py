"""The trials of a sweep under Ray Tune: driver, scheduling, training, records."""
