"""The page's server. It listens on loopback only, stores no upload, and refuses requests of other sites' pages."""

import base64
import json
import sys
import webbrowser
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

from data_shards.errors import UserError
from data_shards.images.read import ready_for_threads
from nla_cyclegan.commands.device import choose_device, out_of_memory
from nla_cyclegan.show.translator import Translator
from nla_cyclegan.weights.names import Direction

HOST = "127.0.0.1"
FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
LARGEST_UPLOAD = 64 << 20
SMALLEST_SIZE, LARGEST_SIZE = 16, 4096


class Server(ThreadingHTTPServer):
    """GET /about: directions and checkpoints; POST /paint and /attention, with the image as the body: pictures as data URLs."""

    daemon_threads = True

    def __init__(self, translator: Translator, port: int) -> None:
        self.translator = translator
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its page while it is answered is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def names(self) -> tuple[str, str]:
        """The accepted Host headers; others, as in DNS rebinding, are refused."""
        return f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_own():
            return
        if path == "/about":
            self._answer(self._about)
        elif path in FILES:
            name = FILES[path]
            self._reply(200, TYPES[name.rpartition(".")[2]], files(__package__).joinpath(name).read_bytes())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        if not self._is_own():
            return
        url = urlsplit(self.path)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_UPLOAD:
            self._reply_json(413, {"error": f"the image is larger than {LARGEST_UPLOAD >> 20} MB"})
            self.close_connection = True
            return
        upload = self.rfile.read(int(length))
        asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
        match url.path:
            case "/paint":
                self._answer(lambda: self._paint(upload, asked))
            case "/attention":
                self._answer(lambda: self._attention(upload, asked))
            case _:
                self.send_error(404)

    def _is_own(self) -> bool:
        origin = self.headers.get("Origin")
        own = self.headers.get("Host") in self.server.names
        if own and (origin is None or origin.removeprefix("http://") in self.server.names):
            return True
        self.send_error(403)
        return False

    def _about(self) -> dict[str, Any]:
        translator = self.server.translator
        return {
            "weights": translator.weights,
            "directions": translator.directions,
            "checkpoints": [{"name": name, "images": images} for name, images in translator.choices().items()],
        }

    def _paint(self, upload: bytes, asked: Mapping[str, str]) -> dict[str, Any]:
        translation = self.server.translator.translate(upload, _direction(asked), self._checkpoint(asked))
        return {name: content and _data_url(content) for name, content in vars(translation).items()}

    def _attention(self, upload: bytes, asked: Mapping[str, str]) -> dict[str, Any]:
        try:
            x, y = (float(asked[name]) for name in ("x", "y"))
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise ValueError
        except (KeyError, ValueError) as error:
            raise UserError("x and y: expected fractions of width and height") from error
        maps = self.server.translator.attention(upload, _direction(asked), self._checkpoint(asked), (x, y))
        return {"maps": [{"block": block, "picture": _data_url(content)} for block, content in maps.items()]}

    def _checkpoint(self, asked: Mapping[str, str]) -> str:
        # Only an existing name is accepted, because it becomes part of a path.
        name = asked.get("checkpoint", "")
        if name not in self.server.translator.choices():
            raise UserError("this checkpoint has been deleted meanwhile; reload the page")
        return name

    def _answer(self, make: Any) -> None:
        try:
            self._reply_json(200, make())
        except UserError as error:
            self._reply_json(400, {"error": str(error)})
        except (MemoryError, RuntimeError) as error:
            whose = out_of_memory(error)
            if whose is None:
                raise
            self._reply_json(400, {"error": f"the {whose} is out of memory: start `show` with a smaller --size"})

    def _reply_json(self, status: int, value: Any) -> None:
        self._reply(status, "application/json", json.dumps(value).encode())

    def _reply(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src 'self' data: blob:")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def serve(weights: str, port: int, size: int, device: str, *, open_browser: bool = False) -> int:
    """Serve until interrupted. Raises: UserError where there are no weights, or the port cannot be listened on."""
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise UserError(f"--size {size}: allowed: {SMALLEST_SIZE} to {LARGEST_SIZE}")
    ready_for_threads()
    translator = Translator(weights, size, choose_device(device))
    try:
        server = Server(translator, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--port {port}: {HOST}:{port} cannot be opened for listening ({reason}); choose another"
        ) from error
    with server:
        address = f"http://{HOST}:{server.server_port}/"
        print(f"{weights}: {address} until Ctrl-C", flush=True)
        if open_browser and not webbrowser.open(address):
            print("warning: --open: no browser was found", file=sys.stderr)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            translator.end()
    return 0


def _direction(asked: Mapping[str, str]) -> Direction:
    for direction in get_args(Direction):
        if asked.get("direction") == direction:
            return direction
    raise UserError(f"direction: allowed: {', '.join(get_args(Direction))}")


def _data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
