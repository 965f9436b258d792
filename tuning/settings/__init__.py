"""A sweep's configuration and options, the plan of its trials, and the search for the next trial."""
