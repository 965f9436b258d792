"""Folders that people have, made in code: what every verb reads of each, and what it leaves out."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gallery import CASES, JPEG, PALETTE, PALETTE_RGB, PICTURE, RGB, Pixels, encoded, more_frames

from data_shards.images.write import save_picture


@dataclass(frozen=True)
class Row:
    """A folder, and what every verb does with it.

    Attributes:
        shown: path below the folder -> the pixels that a viewer shows, and how far off they may be on average.
        skipped: images that are damaged: each verb names them, and goes on.
        said: what each verb says of the files that are left out.
    """

    make: Callable[[Path], object]
    shown: Mapping[str, tuple[Pixels, float]]
    skipped: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    in_tar: tuple[str, ...] = field(default=())
    """What `index` says of a tar of it."""


def _gallery(folder: Path) -> None:
    for name, case in CASES.items():
        path = folder / _apart(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        case[0](path)


def _apart(name: str) -> str:
    """Names that differ in more than their suffix: results are matched without it."""
    path = Path(name)
    return str(path.with_name(path.name.replace(".", "_") + path.suffix))


def _picture(path: Path, file_format: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.save(path, file_format)


DAMAGED = {
    **{f"half_{kind.lower()}.{kind.lower()}": encoded(PICTURE, kind)[: len(encoded(PICTURE, kind)) // 2] for kind in ("PNG", "TIFF", "WEBP", "BMP", "QOI")},
    "half_jpg.jpg": JPEG[: len(JPEG) // 2],
    "half_gif.gif": encoded(PALETTE, "GIF")[:500],
    "checksum.png": encoded(PICTURE, "PNG")[:-16] + b"none" + encoded(PICTURE, "PNG")[-12:],
    "head.png": encoded(PICTURE, "PNG")[:33],
    "empty.jpg": b"",
    "text.webp": b"no picture",
    "phone.heic": b"\0\0\0\x18ftypheic" + bytes(100),
    "new.jxl": b"\xff\x0a" + bytes(100),
}  # fmt: skip


def _damaged(folder: Path) -> None:
    _picture(folder / "good.png")
    for name, data in DAMAGED.items():
        (folder / name).write_bytes(data)


ODD_NAMES = (
    *("a b  c.png", "100%.png", "no#1.png", "quo'te\"s.png", "new\nline.png", "-x.png", "[1]*.png", "ü日本.png", "$(x)`.png"),
    os.fsdecode(b"caf\xe9.png"),
    f"{'x' * 251}.png",
    f"{'日' * 82}xy.jpeg",
)  # fmt: skip


def _names(folder: Path) -> None:
    for name in ODD_NAMES:
        _picture(folder / name)


def _tree(folder: Path) -> None:
    for name in ("one.png", "sub/one.png", "sub/deeper/two.png", "other/three.png"):
        _picture(folder / name)
    for name in (
        "@eaDir/one.png/thumb.png",
        ".thumbnails/x.png",
        "__MACOSX/sub/_one.png",
        "sub/.trash/x.png",
        "sub/._one.png",
    ):
        _picture(folder / name)
    (folder / "notes.txt").write_text("P1 is where we went first")
    (folder / "sub" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")


def _links(folder: Path) -> None:
    _picture(folder / "one.png")
    _picture(folder / "left" / "two.png")
    _picture(folder / "right" / "three.png")
    (folder / "again.png").symlink_to("one.png")
    # In circles: each of the two folders holds the other, and one holds them all.
    (folder / "left" / "right").symlink_to("../right")
    (folder / "right" / "left").symlink_to("../left")
    (folder / "right" / "up").symlink_to("..")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "nothing.png").symlink_to("missing.png")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(folder, os.O_RDONLY)
        # A path of its own would be too long for a socket.
        server.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)


def _results(folder: Path) -> None:
    _picture(folder / "one.png")
    for name in ("one.attention1.png", "grid.png", "sheet.webp", "previews/images_000000001000.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        save_picture(PICTURE.resize((160, 120)), folder / name)
    # Of a version that left no mark.
    _picture(folder / "one.attention2.png")


def _frames(folder: Path) -> None:
    moving, still = encoded(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]), encoded(PICTURE, "PNG")
    (folder / "moving.gif").write_bytes(moving[: len(moving) * 3 // 4])
    (folder / "checksum.png").write_bytes(still[:-16])
    (folder / "frames.png").write_bytes(encoded(PICTURE, "PNG", **more_frames())[:-2000])


EXACT = (RGB, 0.0)
LEFT_AND_RIGHT = ("left/two.png", "left/right/three.png", "right/three.png", "right/left/two.png")
ROWS = {
    "images": Row(_gallery, {_apart(name): (case[1], case[2]) for name, case in CASES.items()}),
    "damaged": Row(_damaged, {"good.png": EXACT}, skipped=tuple(DAMAGED)),
    "cut where nobody looks": Row(
        _frames, {"moving.gif": (PALETTE_RGB, 0), "checksum.png": EXACT, "frames.png": EXACT}
    ),
    "names": Row(_names, dict.fromkeys(ODD_NAMES, EXACT)),
    "tree": Row(
        _tree,
        dict.fromkeys(("one.png", "sub/one.png", "sub/deeper/two.png", "other/three.png"), EXACT),
        said=("hidden, or in a hidden, thumbnail or system folder: 5 files", "no images: 2 files (1 .txt, 1 .mov)"),
        in_tar=("in a hidden, thumbnail or system folder", "1 .txt", "1 .mov", "1 without a suffix, or hidden"),
    ),
    "links": Row(
        _links,
        dict.fromkeys(("one.png", "again.png", *LEFT_AND_RIGHT), EXACT),
        said=("no regular files: 4 files (", "itself.png", "nothing.png", "pipe.png", "socket.png"),
        in_tar=("links to other members", "again.png -> one.png", "nothing.png -> missing.png", "1 no regular files"),
    ),
    "results": Row(
        _results,
        {"one.png": EXACT},
        said=("drawn by this project (attention, grids): 5 files",),
        in_tar=("grid.png: drawn by this project",),
    ),
}  # fmt: skip
