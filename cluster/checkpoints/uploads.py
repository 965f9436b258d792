"""Work in the background, one piece after the other, whose failure is not lost."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Uploads:
    """Stores what it is given while training goes on; at most one piece is under way, so memory stays bounded."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._last: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin when the piece before is done. Raises: what that one raised."""
        self.wait()
        self._last = self._thread.submit(work)

    def wait(self) -> None:
        """Until all is stored. Raises: what the last piece raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Let the piece that is under way come to its end; what it raises is raised by `wait` alone."""
        self._thread.shutdown()
