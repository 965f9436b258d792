class DataError(ValueError):
    """Bad input or damaged data: one line that names the item, what was expected, and what to do."""
