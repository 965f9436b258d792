"""Trackers: experiment tracking services and classes of the user's own, beside the files of the run; see `observe.sinks`."""
