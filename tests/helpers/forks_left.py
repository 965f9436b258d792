"""What a fork server calls at its end in tests of it."""

import os
from pathlib import Path


def delete_mark(server: int) -> None:
    assert server == os.getpid()
    if "MARK" in os.environ:
        Path(os.environ["MARK"]).unlink()
