"""A cluster that only a proxy reaches takes jobs, and one on this machine needs none."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fault_proxy import FaultProxy
from object_stores import LOCALHOST, free_port

from cluster.jobs import submission

LOG = "step 1\\nstep 2\\n"
ANSWERS = {
    "/api/version": '{"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"}',
    "/api/jobs/run-1/logs": f'{{"logs": "{LOG}"}}',
    "/api/jobs/": "[]",
}


class Dashboard(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = ANSWERS.get(self.path, "{}").encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Not on the console."""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        # Set first, so that it is put back however it was.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    server = ThreadingHTTPServer((LOCALHOST, 0), Dashboard)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_cluster_behind_a_proxy(head: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(head) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.endpoint}")
        client = submission.connect("http://head.invalid:8265")
        assert client.list_jobs() == []

        async def log() -> list[str]:
            return [chunk async for chunk in client.tail_job_logs("run-1")]

        assert asyncio.run(log()) == ["step 1\nstep 2\n"]
        assert proxy.count("GET", "/api/jobs/") == 2


def test_a_cluster_on_this_machine(head: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{LOCALHOST}:{free_port()}")
    assert submission.connect(f"http://{LOCALHOST}:{head}").list_jobs() == []
