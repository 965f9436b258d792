"""The configuration of a run, its options, and what is checked and planned before it starts."""
