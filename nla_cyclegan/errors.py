"""Errors a user can fix, as opposed to programming errors."""


class InputError(ValueError):
    """A file, folder or option given by the user cannot be used; the message is one line that says what to do."""
