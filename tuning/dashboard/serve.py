"""Serves the page of a running sweep: the records are read every few seconds, and browsers poll for a new version."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data_shards.errors import UserError
from tuning.analysis.results import read_results
from tuning.dashboard.page import render, version

INTERVAL_S = 3.0


class LivePage:
    """The newest page of a sweep.

    Raises: UserError when there is no sweep.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._trouble = ""
        self._results = read_results(uri)
        self.label = self._results.folder.label
        self._publish()

    def follow(self, stop: threading.Event) -> None:
        """Update until `stop` is set; while storage fails, the last page stays."""
        while not stop.wait(INTERVAL_S):
            try:
                self.update()
                self._warn("")
            except UserError as error:
                self._warn(str(error))

    def update(self) -> None:
        """Read the records, and render them if they have changed. Raises: UserError."""
        decided = {trial.name: trial for trial in self._results.trials if trial.decided}
        results = read_results(self.uri, decided)
        if version(results) != self.version:
            self._results = results
            self._publish()

    def _publish(self) -> None:
        page = render(self._results, self.uri, watching=True).encode()
        self.page, self.version = page, version(self._results)

    def _warn(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            print(f"warning: {trouble}; the page stays as it is", file=sys.stderr)
        self._trouble = trouble


class Server(ThreadingHTTPServer):
    """Answers `/` with the page and `/version` with the hash of its records."""

    daemon_threads = True

    def __init__(self, page: LivePage, host: str, port: int) -> None:
        self.live = page
        super().__init__((host, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        live = self.server.live
        answers = {"/": ("text/html; charset=utf-8", live.page), "/version": ("text/plain", live.version.encode())}
        found = answers.get(self.path.partition("?")[0])
        if found is None:
            self.send_error(404)
            return
        kind, content = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def serve(uri: str, host: str, port: int) -> int:
    """Serve until interrupted. Raises: UserError when there is no sweep, or the port cannot be had."""
    live = LivePage(uri)
    try:
        server = Server(live, host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--port: {host}:{port} cannot be listened on ({reason}); choose another") from error
    stop = threading.Event()
    follower = threading.Thread(target=live.follow, args=(stop,), name="follow", daemon=True)
    with server:
        follower.start()
        print(f"serving {live.label} at http://{host}:{server.server_address[1]}/ until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
        finally:
            stop.set()
    return 0
