"""pyarrow's S3 client, which can read its credentials again."""

import threading
import time
from typing import Any

from pyarrow import fs

# Seconds between two times.
EVERY_S = 5.0


class S3Client(fs.S3FileSystem):
    """A client for all who hold it: files that are open keep the credentials with which they were opened.

    AWS's client asks a `credential_process` and a machine's role again before their credentials expire, and reads the file
    `~/.aws/credentials` only once.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = options
        self._lock, self._renewed_at = threading.Lock(), float("-inf")
        self._before: list[fs.FileSystem] = []

    def renew(self) -> None:
        """Read the credentials again."""
        with self._lock:
            if time.monotonic() - self._renewed_at < EVERY_S:
                return
            self._renewed_at = time.monotonic()
            # Calls of other threads, which have begun, need what this one consists of.
            self._before.append(fs.SubTreeFileSystem("", self))
            super().__init__(**self._options)
