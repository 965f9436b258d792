"""Serves a page while its sweeps run: the records are read every few seconds, and browsers poll for a new version."""

import ipaddress
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data_shards.errors import UserError, say_warning
from tuning.dashboard.sources import source_of

INTERVAL_S = 3.0


class LivePage:
    """The newest page of a sweep, of several, or of a storage.

    Raises: UserError when there is nothing to show.
    """

    def __init__(self, *uris: str) -> None:
        self.uri = uris[0]
        self.source = source_of(uris, watching=True)
        self.version = ""
        self.update()

    def follow(self, stop: threading.Event) -> None:
        """Update until `stop` is set; while storage fails, the last page stays."""
        trouble = ""
        while not stop.wait(INTERVAL_S * self.source.patience):
            before, trouble = trouble, ""
            try:
                self.update()
            except UserError as error:
                trouble = str(error)
                if trouble != before:
                    say_warning(f"{trouble}; the page stays as it is")

    def update(self) -> None:
        """Read the records, and make a new page if they have changed. Raises: UserError."""
        version = self.source.update()
        if version != self.version:
            page = self.source.page(version)
            self.page, self.data, self.version = page.html().encode(), page.document.encode(), version

    def picture(self, trial: str, name: str) -> bytes | None:
        """A preview; None where there is none, or storage is away, of which `follow` warns."""
        with suppress(UserError):
            return self.source.picture(trial, name)
        return None


class Server(ThreadingHTTPServer):
    """Answers `/` with the page, `/data` with what a page needs to become the newest, `/version` with the hash of its
    records, and `/pictures/TRIAL/NAME` with a preview."""

    daemon_threads = True

    def __init__(self, page: LivePage, host: str, port: int) -> None:
        self.live = page
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection is no error to show."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        live = self.server.live
        match self.path.partition("?")[0].split("/")[1:]:
            case [""]:
                self._send("text/html; charset=utf-8", live.page)
            case ["data"]:
                self._send("application/json", live.data)
            case ["version"]:
                self._send("text/plain", live.version.encode())
            case ["pictures", trial, name] if picture := live.picture(trial, name):
                # A preview never changes.
                self._send("image/webp", picture, "max-age=86400")
            case _:
                self.send_error(404)

    def _send(self, kind: str, content: bytes, cache: str = "no-store") -> None:
        self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), ("Cache-Control", cache)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def serve(uris: Sequence[str], host: str, port: int) -> int:
    """Serve until interrupted. Raises: UserError when there is nothing to show, or the port cannot be had."""
    live, stop = LivePage(*uris), threading.Event()
    try:
        server = Server(live, host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--port: {host}:{port} cannot be opened for listening ({reason}); choose another") from error
    if not is_loopback(host):
        say_warning(
            f"--host {host}: everyone who reaches this machine can read the page, as there is no password; "
            "from elsewhere, an SSH tunnel to the default host is safer"
        )
    with server:
        threading.Thread(target=live.follow, args=(stop,), name="follow", daemon=True).start()
        print(f"serving {live.source.label} at http://{host}:{server.server_address[1]}/ until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
        finally:
            stop.set()
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
