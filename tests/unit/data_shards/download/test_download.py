"""The dataset download against a real HTTP server on this machine, and one that misbehaves."""

import io
import os
import shutil
import signal
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shlex import quote

import pytest

from data_shards.__main__ import main
from data_shards.download import fetch
from data_shards.download import monet2photo as download
from data_shards.errors import UserError
from data_shards.storage.temporary import remove_leftovers

IMAGES = {
    f"{split}/{n} of a day.jpg": bytes([n]) * 40_000 + split.encode()
    for split in ("trainA", "trainB", "testA", "testB")
    for n in range(2)
}


def zipped(files: dict[str, bytes], folder: str = "horse2zebra/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` at any path; breaks off after `drop_after` bytes of the body as often as `drops` says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges = zipped(IMAGES), True
        self.etag: str | None = '"1"'
        self.drops, self.drop_after, self.status = 0, 150_000, 200
        self.asked: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/horse2zebra.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        is_same = self.headers["If-Range"] in (None, server.etag)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges and is_same else 0
        body, total = server.content[start:], len(server.content)
        if start >= total:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.drops:
            server.drops -= 1
            body = body[: server.drop_after]
        server.sent += len(body)
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "FIRST_DELAY_S", 0.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(dest: Path, *options: str, name: str = "horse2zebra") -> int:
    return main(["download", name, str(dest), *options])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetches_and_unpacks_without_leftovers(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert files_of(tmp_path / "horses") == IMAGES
    assert names_in(tmp_path) == ["horses"]
    assert "trainA 2, trainB 2, testA 2, testB 2" in capsys.readouterr().out


def test_a_dropped_connection_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.drops = 1
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert server.asked == [None, "bytes=150000-"]
    assert server.sent == len(server.content)
    assert files_of(tmp_path / "horses") == IMAGES


def test_a_later_command_continues(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.drops = 1
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    assert run(tmp_path / "horses", "--url", server.url) == 2
    assert not (tmp_path / "horses").exists()
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert server.asked == [None, "bytes=150000-"]
    assert files_of(tmp_path / "horses") == IMAGES


def test_a_server_that_ignores_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.drops, server.ranges = 1, False
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert server.asked == [None, "bytes=150000-"]
    assert files_of(tmp_path / "horses") == IMAGES


def test_parts_of_two_versions_are_never_joined(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.drops = 1
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    assert run(tmp_path / "horses", "--url", server.url) == 2
    newer = {name: content[::-1] for name, content in IMAGES.items()}
    server.content, server.etag = zipped(newer), '"2"'
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert files_of(tmp_path / "horses") == newer


@pytest.mark.parametrize("each", [90_000, 10])
def test_a_file_of_another_size_is_read_from_the_start_by_any_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    server.drops, server.etag = 1, None
    with monkeypatch.context() as once:
        once.setattr(fetch, "ATTEMPTS", 1)
        assert run(tmp_path / "horses", "--url", server.url) == 2
    newer = {name: content[:1] * each for name, content in IMAGES.items()}
    server.content = zipped(newer)
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert server.asked == [None, "bytes=150000-", None]
    assert files_of(tmp_path / "horses") == newer


def test_gives_up_when_nothing_comes_and_says_what_to_do(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 503
    assert run(tmp_path / "horses", "--url", server.url) == 2
    assert len(server.asked) == fetch.ATTEMPTS
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"error: cannot fetch {server.url}: the server answered 503")
    assert f"python -m data_shards download horse2zebra {quote(f'{tmp_path}/horses')} --zip horse2zebra.zip" in message


def test_a_missing_file_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(UserError, match="the server answered 404"):
        fetch.fetch(server.url, tmp_path / "x.zip")
    assert server.asked == [None]


def test_an_unreachable_host_is_one_clear_error(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip"
        # While nobody else can listen there.
        assert run(tmp_path / "horses", "--url", url) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f"cannot fetch {url}: Connection refused" in errors[0]
    assert names_in(tmp_path) == []


def test_a_corrupt_zip_is_named_deleted_and_fetched_anew(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, flipped = server.content, bytearray(server.content)
    flipped[len(flipped) // 2] ^= 1
    server.content = bytes(flipped)
    assert run(tmp_path / "horses", "--url", server.url) == 2
    assert "Bad CRC-32" in capsys.readouterr().err
    assert names_in(tmp_path) == []
    server.content = whole
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert files_of(tmp_path / "horses") == IMAGES


def test_what_is_there_already_is_left_alone(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "horses", "--url", server.url) == 0
    server.asked.clear()
    capsys.readouterr()
    assert run(tmp_path / "horses", "--url", server.url) == 0
    assert "already" in capsys.readouterr().out
    assert server.asked == []


def test_another_folders_content_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert run(tmp_path) == 2
    assert "holds something else already" in capsys.readouterr().err
    assert files_of(tmp_path) == {"mine.txt": b"kept"}


def test_a_zip_fetched_by_hand_is_used_and_kept(tmp_path: Path) -> None:
    hand = tmp_path / "hand.zip"
    hand.write_bytes(zipped({**IMAGES, "readme.txt": b"-", "trainA/.DS_Store": b"-", "valA/3.jpg": b"-"}))
    assert run(tmp_path / "horses", "--zip", str(hand)) == 0
    assert files_of(tmp_path / "horses") == IMAGES
    assert hand.exists()


@pytest.mark.parametrize("done", [False, True])
def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path, done: bool) -> None:
    dest = tmp_path / "horses"
    hand = tmp_path / ".horses-horse2zebra.zip"
    hand.write_bytes(zipped(IMAGES))
    killed = os.fork()
    if not killed:
        # Killed while it extracts, or after the last thing that it does with the folder.
        where = (shutil, "rmtree") if done else (download, "_check_counts")
        setattr(*where, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
        download.unpack(hand, dest, "horse2zebra")
    assert os.waitpid(killed, 0)[1] == signal.SIGKILL
    assert len(names_in(tmp_path)) == 2 + done
    remove_leftovers.cache_clear()
    assert run(dest) == 0
    assert names_in(tmp_path) == ["horses"]
    assert files_of(dest) == IMAGES


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "horses").symlink_to("disk")
    (tmp_path / "hand.zip").write_bytes(zipped(IMAGES))
    assert run(tmp_path / "horses", "--zip", str(tmp_path / "hand.zip")) == 0
    assert (tmp_path / "horses").is_symlink()
    assert files_of(tmp_path / "disk") == IMAGES


@pytest.mark.parametrize("name", ["../../trainA/x.jpg", "/trainA/x.jpg", "..\\..\\trainA\\x.jpg", "C:/trainA/x.jpg"])
def test_members_that_lead_outside_are_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    hand = tmp_path / "hand.zip"
    hand.write_bytes(zipped({**IMAGES, name: b"evil"}, folder=""))
    assert run(tmp_path / "deep" / "er" / "horses", "--zip", str(hand)) == 2
    assert "leads outside the folder" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [hand]


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    hand = tmp_path / "hand.zip"
    hand.write_bytes(zipped({**IMAGES, ".": b"-"}, folder=""))
    assert run(tmp_path / "horses", "--zip", str(hand)) == 0
    assert files_of(tmp_path / "horses") == IMAGES


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("trainA/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "hand.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="leads outside the folder"):
        download.unpack(tmp_path / "hand.zip", tmp_path / "horses", "horse2zebra")


@pytest.mark.parametrize(
    ("name", "files"),
    [("monet2photo", IMAGES), ("horse2zebra", {k: v for k, v in IMAGES.items() if not k.startswith("testB")})],
)
def test_a_zip_without_the_expected_images_is_refused(
    tmp_path: Path, name: str, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    hand = tmp_path / "hand.zip"
    hand.write_bytes(zipped(files))
    assert run(tmp_path / "out", "--zip", str(hand), name=name) == 2
    assert f"is not {name}: expected" in capsys.readouterr().err
    assert names_in(tmp_path) == ["hand.zip"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x.zip", "horse2zebra.zip", "http://"])
def test_only_web_addresses_are_fetched(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "horses", "--url", url) == 2
    assert "expected an address such as http" in capsys.readouterr().err


def test_a_zip_that_is_missing_or_none_is_an_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "horses", "--zip", str(tmp_path / "gone.zip")) == 2
    assert f"error: {tmp_path}/gone.zip: No such file or directory" in capsys.readouterr().err
    (tmp_path / "page.zip").write_text("<html>sign in</html>")
    assert run(tmp_path / "horses", "--zip", str(tmp_path / "page.zip")) == 2
    assert "is not a zip file, or is damaged" in capsys.readouterr().err
