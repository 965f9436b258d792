"""A small Google Cloud Storage in memory, for pyarrow's client: python gcs_server.py PORT. Any credentials will do, but "refused".

What that client asks of the JSON API: objects listed, read by range, written in one request or in parts, deleted.
"""

import base64
import hashlib
import json
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NUMBERS = count(1)


@dataclass
class Object:
    """An object, or an upload in parts that is not complete yet."""

    bucket: str
    name: str
    data: bytes = b""
    generation: int = field(default_factory=lambda: next(NUMBERS))
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    metadata: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        return {
            "kind": "storage#object", "bucket": self.bucket, "name": self.name, "size": str(len(self.data)),
            "generation": str(self.generation), "metageneration": "1", "timeCreated": self.time, "updated": self.time,
            "metadata": self.metadata, "md5Hash": base64.b64encode(hashlib.md5(self.data).digest()).decode(),
        }  # fmt: skip


class Store(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.buckets: dict[str, dict[str, Object]] = {}
        self.uploads: dict[str, Object] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        if self.headers.get("Authorization", "").endswith("refused"):
            return self._error(403, "caller does not have storage.objects access", "forbidden")
        with self.server.lock:
            # upload/storage/v1/b/BUCKET/o, storage/v1/b/BUCKET/o/NAME
            if path[0] == "upload":
                return self._upload(path[4], body)
            if path[:3] != ["storage", "v1", "b"]:
                return self._error(404, "no such service", "notFound")
            if len(path) == 3:
                return self._make_bucket(json.loads(body)["name"])
            objects = self.server.buckets.get(path[3])
            if objects is None:
                return self._error(404, "The specified bucket does not exist.", "notFound")
            if len(path) == 4:
                return self._send(
                    200, {"kind": "storage#bucket", "name": path[3], "timeCreated": "2026-01-01T00:00:00Z"}
                )
            if len(path) == 5:
                return self._list(objects)
            found = objects.get(path[5])
            if found is None:
                return self._error(404, f"No such object: {path[3]}/{path[5]}", "notFound")
            if self.command == "DELETE":
                del objects[found.name]
                return self._send(204)
        if self.query.get("alt") == "media":
            return self._read(found.data)
        return self._send(200, found.described())

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def _make_bucket(self, name: str) -> None:
        self.server.buckets.setdefault(name, {})
        self._send(200, {"kind": "storage#bucket", "name": name, "timeCreated": "2026-01-01T00:00:00Z"})

    def _list(self, objects: dict[str, Object]) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        items, folders = [], set()
        for name in sorted(objects):
            if not name.startswith(prefix):
                continue
            first, mark, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if mark:
                folders.add(f"{prefix}{first}{mark}")
            else:
                items.append(objects[name].described())
        self._send(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)})

    def _read(self, data: bytes) -> None:
        first, last = 0, len(data) - 1
        if wanted := self.headers.get("Range", "").removeprefix("bytes="):
            begin, _, end = wanted.partition("-")
            first, last = int(begin), min(int(end) if end else last, last)
        if first > last and data:
            return self._error(416, "the range is outside", "requestedRangeNotSatisfiable")
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"} if wanted else {}
        return self._send(206 if wanted else 200, data[first : last + 1], **headers)

    def _upload(self, bucket: str, body: bytes) -> None:
        if bucket not in self.server.buckets:
            return self._error(404, "The specified bucket does not exist.", "notFound")
        if upload_id := self.query.get("upload_id"):
            return self._append(upload_id, body)
        kind = self.query["uploadType"]
        if kind == "resumable":
            asked = json.loads(body or b"{}")
            new = Object(bucket, self.query.get("name") or asked["name"], metadata=asked.get("metadata", {}))
            self.server.uploads[str(new.generation)] = new
            place = f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o?upload_id={new.generation}"
            return self._send(200, {}, Location=place)
        if kind == "media":
            return self._keep(Object(bucket, self.query["name"], body))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        about, content = BytesParser().parsebytes(head + body).get_payload()
        asked = json.loads(about.get_payload())  # type: ignore[union-attr]
        data = content.get_payload(decode=True)  # type: ignore[union-attr]
        return self._keep(Object(bucket, self.query.get("name") or asked["name"], bytes(data)))

    def _append(self, upload_id: str, body: bytes) -> None:
        """bytes 0-99/*, the last 100-149/150; bytes */* asks how far it is."""
        new = self.server.uploads.get(upload_id)
        if new is None:
            return self._error(404, "no such upload", "notFound")
        place, _, total = self.headers.get("Content-Range", "bytes */*").removeprefix("bytes ").partition("/")
        if place != "*":
            begin = int(place.partition("-")[0])
            new.data = new.data[:begin] + body
        elif body:
            new.data = body
        if total != "*" and len(new.data) >= int(total):
            return self._keep(new)
        headers = {"Range": f"bytes=0-{len(new.data) - 1}"} if new.data else {}
        return self._send(308, b"", **headers)

    def _keep(self, new: Object) -> None:
        self.server.buckets[new.bucket][new.name] = new
        self._send(200, new.described())

    def _error(self, status: int, message: str, reason: str) -> None:
        self._send(status, {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}})

    def _send(self, status: int, content: bytes | dict[str, Any] = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *values: Any) -> None:
        print(form % values, file=sys.stderr, flush=True)


if __name__ == "__main__":
    Store(int(sys.argv[1])).serve_forever()
