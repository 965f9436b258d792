"""Sweeps: many runs of `cluster` that differ in a few fields of their configuration, and what came of them."""
