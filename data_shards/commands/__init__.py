"""The verbs that look at a dataset: inspect, bench."""
