class DataError(ValueError):
    """Bad input or damaged data: one line that names the item, what was expected, and what to do."""


class StorageAwayError(DataError):
    """Storage did not answer for as long as it is waited for; later it may."""


def check_range(option: str, value: int | None, lowest: int, highest: int) -> None:
    """DataError for an option's value outside lowest .. highest; None is an option that was not given."""
    if value is not None and not lowest <= value <= highest:
        raise DataError(f"{option} {value} is out of range: {lowest} to {highest}")
