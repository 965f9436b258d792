import shutil
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def empty_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for the cache, which keeps part of it free: the machine's own may be nearly full."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**12, used=0, free=10**12))
