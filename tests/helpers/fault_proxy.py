"""An HTTP proxy that fails on schedule, between a client and an object store: in threads of the test's own process, or as a
program, which takes its orders on standard input: `slow SECONDS`, `well`.
"""

import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

LOCALHOST = "127.0.0.1"
# Of one connection, not to be handed on to the next.
HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message><RequestId>1</RequestId></Error>"""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. `after` counts bytes of the body: the request's where it has one, else the answer's.

    slow_down: answered 503, as S3 throttles. reset: the connection is reset after so many bytes. close: it ends in good
    order after so many bytes. lost: carried out, and reset instead of answered. hang: no answer for `seconds`, then a
    reset. slow: the answer comes `seconds` later.
    """

    kind: Literal["slow_down", "reset", "close", "lost", "hang", "slow"]
    after: int = 0
    seconds: float = 0.0


@dataclass
class Rule:
    """A fault for the next `times` requests of this method ("" for any) whose path has `path` in it, after `skip` of them."""

    fault: Fault
    times: int = 1
    skip: int = 0
    method: str = ""
    path: str = ""

    def takes(self, method: str, path: str) -> bool:
        if self.method not in ("", method) or self.path not in path or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Seen:
    """A request that has been dealt with, and the bytes of the answer's body that were sent."""

    method: str
    path: str
    body_bytes: int


class FaultProxy:
    """Passes requests on to `upstream` (a port, or host and port); use it as a context manager.

    Rules are looked through in the order in which they were added, and one request meets one fault at most.
    """

    def __init__(self, upstream: int | tuple[str, int], host: str = LOCALHOST, port: int = 0) -> None:
        self.upstream = upstream if isinstance(upstream, tuple) else (LOCALHOST, upstream)
        self.seen: list[Seen] = []
        # The kinds of the faults that have happened, in their order.
        self.faults: list[str] = []
        self.closed = threading.Event()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._host, self.port = host, port
        self._return: threading.Timer | None = None
        self._listen()

    @property
    def endpoint(self) -> str:
        return f"{self._host}:{self.port}"

    def fail(self, fault: Fault, times: int = 1, *, skip: int = 0, method: str = "", path: str = "") -> None:
        """Add a rule: see Rule."""
        with self._lock:
            self._rules.append(Rule(fault, times, skip, method, path))

    def well(self) -> None:
        """Drop all rules."""
        with self._lock:
            self._rules.clear()

    def count(self, method: str = "", path: str = "") -> int:
        return sum(1 for _ in self._matching(method, path))

    def body_bytes(self, method: str = "", path: str = "") -> int:
        return sum(seen.body_bytes for seen in self._matching(method, path))

    def _matching(self, method: str, path: str) -> Iterator[Seen]:
        return (seen for seen in list(self.seen) if method in ("", seen.method) and path in seen.path)

    def away(self, seconds: float) -> None:
        """Nothing listens, and what was connected is reset, from now on for so long. Returns at once."""
        self._stop_listening()
        self._return = threading.Timer(seconds, self._listen)
        self._return.start()

    def _listen(self) -> None:
        # The same port again after an absence.
        self._server = _Server((self._host, self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.reset_connections()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            fault = next((rule.fault for rule in self._rules if rule.takes(method, path)), None)
            if fault:
                self.faults.append(fault.kind)
            return fault

    def close(self) -> None:
        self.closed.set()
        if self._return:
            self._return.cancel()
            self._return.join()
        self._stop_listening()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        # No orderly end before the close: it would hide a reset.
        self._connections.discard(request)
        request.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is what this proxy is for."""

    def reset_connections(self) -> None:
        for connection in list(self._connections):
            _reset_on_close(connection)
            connection.shutdown(socket.SHUT_RD)


def _reset_on_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        proxy = self.server.proxy
        # A client that takes it for a web proxy names the host as well.
        self.path = re.sub("^http://[^/]*", "", self.path)
        fault = proxy.fault_for(self.command, self.path)
        # Counted also where the client hangs up first.
        sent = 0
        try:
            sent = self._pass_on(fault)
        except (OSError, HTTPException):
            self._break(reset=True)
        finally:
            proxy.seen.append(Seen(self.command, self.path, sent))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def _pass_on(self, fault: Fault | None) -> int:
        """Answer, or fail; the bytes of the answer's body that were sent."""
        match fault:
            case None:
                return self._send(self._ask(self._read_body()))
            case Fault("slow", seconds=seconds):
                self.server.proxy.closed.wait(seconds)
                return self._send(self._ask(self._read_body()))
            case Fault("slow_down"):
                self._read_body()
                return self._send(_Answer(503, [("Content-Type", "application/xml")], SLOW_DOWN))
            case Fault("lost"):
                self._ask(self._read_body())
            case Fault("hang", seconds=seconds):
                self.server.proxy.closed.wait(seconds)
            case Fault(after=after) if "Transfer-Encoding" in self.headers:
                self.rfile.read(after)
            case Fault(after=after) if (length := int(self.headers.get("Content-Length", 0))) or self.command == "POST":
                self.rfile.read(min(after, length))
            case Fault(after=after):
                answer = self._ask(b"")
                self._break(reset=fault.kind == "reset")
                return self._send(answer, after) if answer.body else 0
        return self._break(reset=fault.kind != "close")

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _ask(self, body: bytes) -> _Answer:
        upstream = HTTPConnection(*self.server.proxy.upstream, timeout=60)
        try:
            is_chunked = "Transfer-Encoding" in self.headers
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_HEADERS:
                    upstream.putheader(name, value)
            upstream.putheader(*("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(len(body))))
            upstream.endheaders([body] if body else None, encode_chunked=is_chunked)
            answer = upstream.getresponse()
            kept = HOP_HEADERS if self.command != "HEAD" else HOP_HEADERS - {"content-length"}
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in kept]
            return _Answer(answer.status, headers, answer.read())
        finally:
            upstream.close()

    def _send(self, answer: _Answer, end: int | None = None) -> int:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.command != "HEAD" and answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = answer.body[:end] if self.command != "HEAD" else b""
        self.wfile.write(body)
        return len(body)

    def _break(self, *, reset: bool) -> int:
        if reset:
            _reset_on_close(self.connection)
        self.close_connection = True
        return 0

    def log_message(self, *args: object) -> None:
        """Requests are counted, not printed."""


def main(host: str, port: str, upstream: str) -> None:
    with FaultProxy(int(upstream), host, int(port)) as proxy:
        print(proxy.port, flush=True)
        for line in sys.stdin:
            match line.split():
                case ["slow", seconds]:
                    proxy.fail(Fault("slow", seconds=float(seconds)), times=1_000_000)
                case ["fail", kind, method, times]:
                    proxy.fail(Fault(kind), int(times), method=method)  # type: ignore[arg-type]
                case ["well"]:
                    proxy.well()
            print(line.strip(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
