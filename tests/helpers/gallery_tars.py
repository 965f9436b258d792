"""Tars that others wrote, made in code: what `index` makes of each."""

import io
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gallery import JPEG, PICTURE, encoded

PNG = encoded(PICTURE, "PNG")
# Black above, noise below: a file with a hole for a sparse member.
BLACK_BYTES = 64 << 10


@dataclass(frozen=True)
class TarRow:
    """A tar, and what becomes of it.

    Attributes:
        names: of the images that are read, in their order; none where it is refused.
        said: on stderr.
        options: of `index`.
    """

    make: Callable[[Path], object]
    names: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    file: str = "trainA-0.tar"


def _tar(*members: tuple[str, bytes] | tarfile.TarInfo, tar_format: int = tarfile.GNU_FORMAT, mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode, format=tar_format) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return data.getvalue()


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo, **options: int | str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(_tar(*members, **options))  # type: ignore[arg-type]


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def holed() -> bytes:
    """A BMP of which the first pixels are zeros."""
    picture = PICTURE.resize((256, 256))
    picture.paste((0, 0, 0), (0, 128, 256, 256))
    return encoded(picture, "BMP")


def _sparse_gnu(path: Path) -> None:
    """As GNU tar --sparse writes a file: its head, a hole, its tail."""
    content = holed()
    head, tail = content[:512], content[BLACK_BYTES:]
    stored = head + tail
    header = bytearray(tarfile.TarInfo("holed.bmp").tobuf(tarfile.GNU_FORMAT))
    parts = [(0, len(head)), (BLACK_BYTES, len(tail)), (len(content), 0)]
    header[124:136], header[156:157] = b"%011o\0" % len(stored), tarfile.GNUTYPE_SPARSE
    header[386:482] = b"".join(b"%011o\0%011o\0" % part for part in parts).ljust(96, b"\0")
    header[483:495] = b"%011o\0" % len(content)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    block = bytes(header) + stored + bytes(-len(stored) % 512)
    path.write_bytes(block + _tar(("plain.png", PNG)))


def _sparse_pax(path: Path) -> None:
    """The same in the POSIX format, version 1.0: the map lies before the data."""
    content = holed()
    head, tail = content[:512], content[BLACK_BYTES:]
    parts = f"2\n0\n{len(head)}\n{BLACK_BYTES}\n{len(tail)}\n".encode().ljust(512, b"\0")
    info = tarfile.TarInfo("GNUSparseFile.0/holed.bmp")
    info.size = len(parts) + len(head) + len(tail)
    info.pax_headers = {
        **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "holed.bmp"},
        "GNU.sparse.realsize": str(len(content)),
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(parts + head + tail))
        plain = tarfile.TarInfo("plain.png")
        plain.size = len(PNG)
        tar.addfile(plain, io.BytesIO(PNG))
    path.write_bytes(data.getvalue())


def _negative(path: Path) -> None:
    """A header whose size is below zero, which would lead back."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -4096)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(_tar(("0.png", PNG))[:-10240] + bytes(header) + bytes(10240))


TWO = (("a.png", PNG), ("b.jpg", JPEG))
ROWS = {
    "directories and a dot in front": TarRow(
        tar_of(member("./", tarfile.DIRTYPE), ("./a.png", PNG), member("./sub", tarfile.DIRTYPE), ("./sub/b.jpg", JPEG)),
        ("./a.png", "./sub/b.jpg"),
    ),
    "names that lead elsewhere": TarRow(
        tar_of(("/etc/a.png", PNG), ("../../b.jpg", JPEG), ("C:\\c.png", PNG)), ("/etc/a.png", "../../b.jpg", "C:\\c.png")
    ),
    "names of any letters": TarRow(
        tar_of(("new\nline.png", PNG), ("caf\udce9.png", PNG), ("ü 100%#.png", PNG)),
        ("new\nline.png", "caf\\xe9.png", "ü 100%#.png"),
    ),
    "long names": TarRow(tar_of((f"{'x' * 300}.png", PNG), ("b.jpg", JPEG)), (f"{'x' * 300}.png", "b.jpg")),
    "pax headers": TarRow(
        tar_of((f"{'日' * 80}.png", PNG), ("b.jpg", JPEG), tar_format=tarfile.PAX_FORMAT), (f"{'日' * 80}.png", "b.jpg")
    ),
    "links": TarRow(
        tar_of(*TWO, member("c.png", tarfile.LNKTYPE, "a.png"), member("d.png", tarfile.SYMTYPE, "a.png")),
        ("a.png", "b.jpg"),
        ("(tar --dereference --hard-dereference) (2)", "c.png -> a.png", "d.png -> a.png"),
    ),
    "devices and pipes": TarRow(
        tar_of(*TWO, member("c.png", tarfile.FIFOTYPE), member("d.png", tarfile.CHRTYPE)),
        ("a.png", "b.jpg"),
        ("2 no regular files",),
    ),
    "sparse": TarRow(_sparse_gnu, ("holed.bmp", "plain.png")),
    "sparse in pax": TarRow(_sparse_pax, ("holed.bmp", "plain.png")),
    "a Mac's notes": TarRow(
        tar_of(("./._a.png", b"notes"), ("./a.png", PNG), ("./._b.jpg", b"notes"), ("./b.jpg", JPEG)),
        ("./a.png", "./b.jpg"),
        ("2 without a suffix, or hidden",),
    ),
    "thumbnails": TarRow(
        tar_of(*TWO, ("@eaDir/a.png/thumb.jpg", JPEG), (".cache/c.jpg", JPEG)),
        ("a.png", "b.jpg"),
        ("thumb.jpg: in a hidden, thumbnail or system folder", ".cache/c.jpg: in a hidden"),
    ),
    "all below a hidden folder": TarRow(
        tar_of((".data/a.png", PNG), (".data/b.jpg", JPEG)), (".data/a.png", ".data/b.jpg")
    ),
    "fields": TarRow(
        tar_of(("0.left.png", PNG), ("0.right.jpg", JPEG), ("0.json", b"{}"), ("1.left.png", PNG)),
        ("0.left.png", "1.left.png"),
        ("1 .right.jpg", "1 .json"),
        ("--field", "left"),
    ),
    "fields that nobody named": TarRow(tar_of(("0.left.png", PNG), ("1.left.png", PNG)), (), ("--field left.png",)),
    "no images": TarRow(tar_of(*TWO, ("c.txt", b""), ("README", b""), ("d.json", b"{}")), ("a.png", "b.jpg"), ("1 .txt", "1 .json", "1 without a suffix")),
    "the same name twice": TarRow(tar_of(*TWO, ("a.png", PNG)), (), ("the key a comes twice",)),
    "compressed": TarRow(tar_of(*TWO, mode="w:gz"), (), ("is compressed",), file="trainA-0.tar.gz"),
    "compressed, with another name": TarRow(tar_of(*TWO, mode="w:gz"), (), ("it is compressed (gzip)",)),
    "compressed, as tgz": TarRow(tar_of(*TWO, mode="w:gz"), (), ("is compressed",), file="trainA-0.tgz"),
    "cut in an image": TarRow(lambda path: path.write_bytes(_tar(*TWO)[:2000]), (), ("it is cut short",)),
    "cut in a header": TarRow(lambda path: path.write_bytes(_tar(*TWO)[:100]), (), ("it is damaged at byte 0 (truncated header)",)),
    "empty": TarRow(lambda path: path.write_bytes(b""), (), ("it is empty",)),
    "no tar": TarRow(lambda path: path.write_bytes(PNG * 9), (), ("it is damaged at byte 0",)),
    "a header that leads back": TarRow(_negative, (), ("it is damaged at byte",)),
}  # fmt: skip
