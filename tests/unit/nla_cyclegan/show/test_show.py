"""The page's server: its translations are what `translate` does, and nobody else's page gets an answer."""

import base64
import io
import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from live_processes import wait_until
from PIL import Image

from nla_cyclegan import Generator, GeneratorConfig, load_generator, paint
from nla_cyclegan.__main__ import main
from nla_cyclegan.show.serve import Server
from nla_cyclegan.show.translator import Translator
from nla_cyclegan.weights.generators import save_generator
from nla_cyclegan.weights.hub import save_hub

BLOCKS = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(0, 1), nonlocal_gain=0.5)
MASKED = GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=(), output="masked")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for images in (8, 120, 16):
        (folder / f"checkpoint_{images}").mkdir()
        for name, config in {"generator_ab": MASKED, "generator_ba": BLOCKS}.items():
            torch.manual_seed(images)
            save_generator(Generator(config), folder / f"checkpoint_{images}" / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[str]:
    server = Server(Translator(str(run), 64, torch.device("cpu")), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def asked(address: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status, and the JSON or the text that came back."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as answer:
            content, status = answer.read(), answer.status
    except urllib.error.HTTPError as error:
        content, status = error.read(), error.code
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode()


def photo(width: int = 40, height: int = 24) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_end_waits_for_the_translation_under_way_and_lets_no_other_begin(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = Translator(str(run), 64, torch.device("cpu"))
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def blocked(upload: bytes) -> None:
        entered.set()
        go_on.wait()
        done.set()
        raise InterruptedError

    monkeypatch.setattr(translator, "_read", blocked)

    def translate() -> None:
        with pytest.raises(InterruptedError):
            translator.translate(photo(), "B2A", "checkpoint_8")

    threading.Thread(target=translate).start()
    entered.wait()
    threading.Timer(0.05, go_on.set).start()
    translator.end()
    assert done.is_set()
    entered.clear()
    threading.Thread(target=translate, daemon=True).start()
    assert not entered.wait(0.05)


def picture(url: str) -> Image.Image:
    kind, _, content = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_page_and_what_can_be_chosen(served: str, run: Path) -> None:
    status, about = asked(f"{served}/about")
    assert status == 200
    assert about["checkpoints"] == [{"name": f"checkpoint_{images}", "images": images} for images in (8, 16, 120)]
    assert set(about["directions"]) == {"A2B", "B2A"}
    assert about["weights"] == str(run)
    for path, text in {"/": "<title>", "/page.css": "--accent", "/page.js": "fetch("}.items():
        status, content = asked(served + path)
        assert (status, text in content) == (200, True)
    assert asked(f"{served}/../translator.py")[0] == 404


@pytest.mark.parametrize("images", [8, 120])
def test_a_painting_is_that_of_the_checkpoint(served: str, run: Path, images: int) -> None:
    given = Image.open(io.BytesIO(photo()))
    there, back = (load_generator(run / f"checkpoint_{images}", direction) for direction in ("B2A", "A2B"))
    status, found = asked(f"{served}/paint?direction=B2A&checkpoint=checkpoint_{images}", photo())
    assert status == 200
    assert picture(found["image"]).tobytes() == given.tobytes()
    assert picture(found["translated"]).tobytes() == paint(there, given).tobytes()
    assert picture(found["back"]).tobytes() == paint(back, paint(there, given)).tobytes()
    assert found["mask"] is None
    _, masked = asked(f"{served}/paint?direction=A2B&checkpoint=checkpoint_{images}", photo())
    assert picture(masked["translated"]).tobytes() == paint(back, given).tobytes()
    assert picture(masked["mask"]).size == given.size


def test_attention_of_each_block_from_the_point(served: str) -> None:
    status, found = asked(f"{served}/attention?direction=B2A&checkpoint=checkpoint_8&x=0.25&y=1.0", photo())
    assert (status, [each["block"] for each in found["maps"]]) == (200, [0, 1])
    assert picture(found["maps"][0]["picture"]).size == (40, 24)
    _, other = asked(f"{served}/attention?direction=B2A&checkpoint=checkpoint_8&x=0.9&y=0.1", photo())
    assert other["maps"][0]["picture"] != found["maps"][0]["picture"]
    assert asked(f"{served}/attention?direction=A2B&checkpoint=checkpoint_8&x=0&y=0", photo())[1] == {"maps": []}


def test_a_large_image_is_reduced(served: str) -> None:
    _, found = asked(f"{served}/paint?direction=B2A&checkpoint=checkpoint_8", photo(200, 100))
    width, height = picture(found["translated"]).size
    assert width * height <= 64**2
    assert width == pytest.approx(2 * height, abs=2)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("paint?direction=B2A&checkpoint=checkpoint_8", b"no image", "not a readable image"),
        ("paint?direction=B2A&checkpoint=checkpoint_8", b"", "not a readable image"),
        ("paint?direction=both&checkpoint=checkpoint_8", photo(), "direction: allowed: A2B, B2A"),
        ("paint?direction=B2A&checkpoint=../run/checkpoint_8", photo(), "this checkpoint has been deleted"),
        ("paint?direction=B2A", photo(), "this checkpoint has been deleted"),
        ("attention?direction=B2A&checkpoint=checkpoint_8&x=a&y=0", photo(), "x and y: expected fractions"),
        ("attention?direction=B2A&checkpoint=checkpoint_8&x=nan&y=0", photo(), "x and y: expected fractions"),
    ],
)
def test_what_cannot_be_answered_is_one_line(served: str, path: str, body: bytes, message: str) -> None:
    status, answer = asked(f"{served}/{path}", body)
    assert status == 400
    assert answer["error"].startswith(message)
    assert "\n" not in answer["error"]


def test_other_sites_get_nothing(served: str) -> None:
    address = f"{served}/paint?direction=B2A&checkpoint=checkpoint_8"
    assert asked(address, photo(), Origin="http://evil.example")[0] == 403
    assert asked(address, photo(), Host="evil.example")[0] == 403
    assert asked(f"{served}/about", Host="evil.example")[0] == 403
    assert asked(address, photo(), Origin=served)[0] == 200
    assert asked(address, photo(), **{"Content-Length": str(1 << 30)})[0] == 413


def test_one_generator_alone_has_no_way_back(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_generator(Generator(BLOCKS), tmp_path / "mine.safetensors")
    save_hub({"A2B": Generator(MASKED)}, tmp_path / "hub_ab", {})
    for weights in (tmp_path / "mine.safetensors", tmp_path / "generator_ab.safetensors", tmp_path / "hub_ab"):
        save_generator(Generator(MASKED), tmp_path / "generator_ab.safetensors")
        translator = Translator(str(weights), 64, torch.device("cpu"))
        (direction,) = translator.directions
        assert direction == ("A2B" if "ab" in weights.name else "B2A")
        assert translator.translate(photo(), direction, "").back is None
    assert Translator(f"{run}@16", 64, torch.device("cpu")).choices() == {"": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "nowhere"], "nowhere: no such weight file, checkpoint folder or run folder"),
        (["--size", "0"], "--size 0: allowed: 16 to 4096"),
        (["--device", "no"], "--device no: not usable here"),
        (["--port", "-1"], "--port -1: 127.0.0.1:-1 cannot be opened for listening"),
        (["--port", "TAKEN"], "cannot be opened for listening (Address already in use); choose another"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    options: list[str], message: str, run: Path, served: str, capsys: Any
) -> None:
    options = [option.replace("TAKEN", served.rpartition(":")[2]) for option in options]
    assert main(["show", "--weights", str(run), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "device"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "machine"),
    ],
)
def test_an_end_of_memory_is_said_on_the_page(served, monkeypatch, error, whose) -> None:
    monkeypatch.setattr(Translator, "translate", Mock(side_effect=error))
    status, answer = asked(f"{served}/paint?direction=B2A&checkpoint=checkpoint_8", b"an image")
    assert status == 400
    assert answer["error"].startswith(f"the {whose} is out of memory")


def test_a_page_that_is_closed_while_it_is_answered_is_no_error(served, capfd: pytest.CaptureFixture[str]) -> None:
    host = served.removeprefix("http://")
    before = set(threading.enumerate())
    with socket.create_connection(tuple(host.split(":"))) as connection:
        connection.sendall(f"POST /paint HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99\r\n\r\n".encode())
        # A reset, not an end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert asked(f"{served}/about")[0] == 200
    # Both are answered.
    wait_until(lambda: set(threading.enumerate()) <= before)
    assert capfd.readouterr().err == ""
