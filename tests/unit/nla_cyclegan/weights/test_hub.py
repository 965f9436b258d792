"""Repositories of the Hugging Face Hub: written, read from a folder and over HTTP."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
import torch
from PIL import Image

from data_shards.errors import UserError
from nla_cyclegan import Generator, GeneratorConfig, from_pretrained, paint
from nla_cyclegan.__main__ import main
from nla_cyclegan.weights.generators import load_generator, save_generator

CONFIG = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(1,), nonlocal_gain=0.5)
MASKED = GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=(), output="masked", norm="group")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMAND = "python -m cluster train --name=monet --storage=/home/me/runs "
COMMAND += "--data.uri=s3://bucket/monet2photo --init.from=/home/me/runs/first@best --seed=3"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a checkpoint at 8 images, previews at 4, 8 and 12, and what a run.json says."""
    folder = tmp_path / "run"
    checkpoint = folder / "checkpoint_8"
    checkpoint.mkdir(parents=True)
    for seed, (name, config) in enumerate({"generator_ab": MASKED, "generator_ba": CONFIG}.items()):
        torch.manual_seed(seed)
        save_generator(Generator(config), checkpoint / f"{name}.safetensors")
    about = {
        "config": {"name": "monet", "data": {"uri": "s3://bucket/monet2photo"}},
        "command": COMMAND,
        "images_seen": 8,
        "metrics": {"images": 8, "swd": 12.5, "swd_A2B": 10.25, "cycle_a": 0.5, "lr": 2e-4, "kid": float("nan")},
    }
    (checkpoint / "run.json").write_text(json.dumps(about))
    for images in (4, 8, 12):
        file = folder / "previews" / f"images_{images:012d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (images, 4)).save(file)
    return folder


def export(run: Path, out: Path, *more: str) -> int:
    return main(["export", "--weights", str(run), "--format", "hub", str(out), *more])


def same(read: Generator, written: Generator) -> bool:
    tensors = written.state_dict()
    return read.config == written.config and all(torch.equal(tensors[name], x) for name, x in read.state_dict().items())


def test_both_directions_come_back_exactly(run: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "hub"
    assert export(run, out, "--license", "cc-by-4.0") == 0
    assert f"{out}: A2B and B2A; to upload it: hf upload USER/NAME {quote(str(out))}" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {"config.json", "model.safetensors", "README.md", "preview.png"}
    for direction in ("A2B", "B2A"):
        read = from_pretrained(out, direction)
        assert same(read, load_generator(run, direction))
        assert not read.training
        assert same(read, load_generator(out, direction))
    assert from_pretrained(str(out)).config == CONFIG
    card = (out / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("\n---\n")
    assert "license: cc-by-4.0" in head.splitlines()
    assert "python -m cluster train --name=monet --data.uri=monet2photo --init.from=first@best --seed=3" in body
    assert "bucket" not in card
    assert "8 image pairs of monet2photo seen" in body
    assert [line for line in body.splitlines() if line.startswith("| `")] == [
        "| `swd` | 12.5 |", "| `swd_A2B` | 10.25 |", "| `cycle_a` | 0.5 |",
    ]  # fmt: skip
    assert "(preview.png)" in body
    assert Image.open(out / "preview.png").width == 8
    # Again, into the same folder: now without a licence, of one direction.
    assert export(run, out, "--direction", "A2B") == 0
    assert "license" not in (out / "README.md").read_text()
    with pytest.raises(UserError, match="holds A2B, but B2A is asked for"):
        from_pretrained(out)


def test_a_picture_of_any_kind_is_painted(run: Path) -> None:
    generator = load_generator(run, "B2A")
    photo = Image.effect_noise((37, 21), 80)
    painted = paint(generator, photo)
    assert (painted.size, painted.mode) == ((37, 21), "RGB")
    turned = photo.convert("RGB")
    turned.getexif()[0x0112] = 6
    assert paint(generator, turned).size == (21, 37)
    # Pillow's exif_transpose fails on this resolution of the wrong type, as a Windows Explorer wrote it.
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0\x12\1\3\0\1\0\0\0\6\0\0\0\x1a\1\7\0\3\0\0\0abc\0\0\0\0\0"
    photo.save(run / "turned.jpg", exif=exif)
    with Image.open(run / "turned.jpg") as opened:
        assert paint(generator, opened).size == (21, 37)
    with pytest.raises(TypeError, match=r"picture is a PosixPath; expected a PIL image"):
        paint(generator, run)


def test_a_weight_file_alone(run: Path, tmp_path: Path, capsys: Any) -> None:
    torch.manual_seed(1)
    save_generator(Generator(CONFIG), tmp_path / "mine.safetensors")
    assert export(tmp_path / "mine.safetensors", tmp_path / "hub") == 2
    assert "holds one generator, but both are needed" in capsys.readouterr().err
    assert export(tmp_path / "mine.safetensors", tmp_path / "hub", "--direction", "B2A") == 0
    assert same(from_pretrained(tmp_path / "hub"), load_generator(tmp_path / "mine.safetensors"))
    assert "## Training" not in (tmp_path / "hub" / "README.md").read_text()


def test_a_record_that_is_not_this_programs_costs_only_its_lines(run: Path, tmp_path: Path) -> None:
    (run / "checkpoint_8" / "run.json").write_text(json.dumps({"command": "python 'train", "images_seen": "8"}))
    assert export(run, tmp_path / "hub") == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "## Use" in card
    assert "```bash" not in card
    assert "## Training" not in card


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json in it"),
        ("model.safetensors", None, "no model.safetensors in it"),
        ("config.json", "{", "config.json: damaged"),
        ("config.json", "[]", "config.json: not of nla_cyclegan.hub"),
        ("config.json", '{"model_type": "bert"}', "config.json: not of nla_cyclegan.hub"),
        ("config.json", '{"format": "nla_cyclegan.hub"}', "damaged (no version, or no generators)"),
        ("config.json", '{"format": "nla_cyclegan.hub", "version": 2, "generators": {}}', "format version 2"),
        ("config.json", '{"format": "nla_cyclegan.hub", "version": 1, "generators": {"B2A": {"num_blocks": 3}}}', "do not make a generator (nonlocal_blocks has [4], "),
        ("config.json", '{"format": "nla_cyclegan.hub", "version": 1, "generators": {"B2A": {"num_blocks": 7}}}', "is [8, 8, 3, 3] there, [256, 256, 3, 3] by the config; "),
        ("config.json", '{"format": "nla_cyclegan.hub", "version": 1, "generators": {"B2A": {"blocks": 3}}}', "do not make a generator"),
        ("model.safetensors", "no weights", "model.safetensors: damaged"),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_one_line(run: Path, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    out = tmp_path / "hub"
    assert export(run, out) == 0
    (out / name).unlink()
    if content is not None:
        (out / name).write_text(content)
    with pytest.raises(UserError) as error:
        from_pretrained(out)
    assert message in str(error.value)
    assert str(error.value).startswith(str(out))
    assert "\n" not in str(error.value)


def test_nothing_else_is_written_over(run: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "project"
    other.mkdir()
    (other / "README.md").write_text("mine")
    assert export(run, other) == 2
    assert "holds another README.md, which would be overwritten" in capsys.readouterr().err
    assert [file.name for file in other.iterdir()] == ["README.md"]
    assert export(run, tmp_path / "new", "--license", "My Own") == 2
    assert "--license My Own" in capsys.readouterr().err
    assert export(tmp_path / "nothing", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()
    assert main(["export", "--weights", str(run), "--format", "hub"]) == 2
    assert "--out: give it exactly once" in capsys.readouterr().err


def test_an_interrupted_export_is_completed_by_the_same_command(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    assert export(run, out) == 0
    expected = {file.name: file.read_bytes() for file in out.iterdir()}
    # In the reverse of the order in which they are written.
    for lacking in ("config.json", "model.safetensors", "preview.png"):
        (out / lacking).unlink()
        kept = {file: file.read_bytes() for file in out.iterdir()}
        assert export(run, out) == 0
        assert {file.name: file.read_bytes() for file in out.iterdir()} == expected
        for file in set(out.iterdir()) - set(kept):
            file.unlink()


@pytest.mark.parametrize("source", ["no/such/folder", "nowhere", "/nowhere/at/all", "../x", "s3://bucket/x"])
def test_what_is_neither_folder_nor_repository(source: str) -> None:
    with pytest.raises(UserError, match="no such folder; a repository on the Hugging Face Hub is named user/name"):
        from_pretrained(source)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'nla-cyclegan\[hub\]'"):
        from_pretrained("user/name")


class Hub(BaseHTTPRequestHandler):
    """What `hf_hub_download` asks a hub for: /user/name/resolve/REVISION/FILE."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, *arguments: Any) -> None:
        self.folder = folder
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        repository, _, rest = self.path.partition("/resolve/")
        _, _, name = rest.partition("/")
        file = self.folder / name
        if repository not in ("/user/monet", "/user/empty"):
            self.reply(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repository == "/user/empty" or not file.is_file():
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.reply(200, {"ETag": etag, "X-Repo-Commit": COMMIT}, content, body=body)

    def reply(self, status: int, headers: dict[str, str], content: bytes = b"", *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def endpoint(run: Path, tmp_path: Path) -> Iterator[str]:
    assert export(run, tmp_path / "hub") == 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, tmp_path / "hub"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


NOTEBOOK = """
import sys
from PIL import Image
from nla_cyclegan import from_pretrained, paint
from data_shards.errors import UserError

paint(from_pretrained("user/monet"), Image.open(sys.argv[1])).save(sys.argv[2])
for repository in ("user/other", "user/empty"):
    try:
        from_pretrained(repository)
    except UserError as error:
        print(error)
import huggingface_hub.constants
# As without a network, for which the library would wait.
huggingface_hub.constants.HF_HUB_OFFLINE = True
from_pretrained("user/monet", "A2B")
try:
    from_pretrained("user/another")
except UserError as error:
    print(error)
"""


def test_from_the_hub(endpoint: str, run: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.effect_noise((24, 16), 80).convert("RGB").save(photo)
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # After ten seconds the library takes a busy machine for one without a network.
        **dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), "120"),
    }
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(photo), str(tmp_path / "painted.png")],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = paint(load_generator(run, "B2A"), Image.open(photo))
    assert Image.open(tmp_path / "painted.png").tobytes() == expected.tobytes()
    none, empty, away = done.stdout.splitlines()
    assert none.startswith(
        "user/other: neither a folder here nor a repository on the Hugging Face Hub that can be read"
    )
    assert empty.startswith("user/empty: the repository has no config.json and model.safetensors")
    assert away.startswith("user/another: no such folder here; the Hugging Face Hub cannot be reached")
