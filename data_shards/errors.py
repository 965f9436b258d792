class DataError(ValueError):
    """Bad input or damaged data: one line that names the item, what was expected, and what to do."""


class StorageAwayError(DataError):
    """Storage did not answer for as long as it is waited for; later it may."""
