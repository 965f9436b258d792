"""Removes damaged metadata from image files: they are no reason to refuse a picture.

A PNG is a row of chunks, of which those whose names begin with a lower case letter may be ignored; a JPEG is one of segments, a
WebP one of chunks. What makes the pixels stays, and what says how they are to be seen, as long as it is whole.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image
from PIL.PngImagePlugin import PngStream

PNG_START = b"\x89PNG\r\n\x1a\n"
# Offset in a PNG file.
COLOUR_TYPE = 25
# The chunks of a PNG of one pixel, between which another chunk can be tried.
ONE_PIXEL = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(4))), (b"IEND", b"")
TRANSPARENCY = b"tRNS"
# Its length in bytes, by colour type: one colour, or the opacity of up to 256.
TRANSPARENCY_BYTES = {0: range(2, 3), 2: range(6, 7), 3: range(257)}
# Chunks of an animation's further frames, which are not needed.
ANIMATION = (b"acTL", b"fcTL", b"fdAT")
# Segments of a JPEG that define its colours: their first bytes and smallest length.
COLOUR_SEGMENTS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
EXIF, COMMENT, SCAN, END = 0xE1, 0xFE, 0xDA, 0xD9
# Up to the number of components, which are then listed: of a frame by 3 bytes each, of a scan by 2. None is among the pixels' bytes.
FRAME = re.compile(rb"\xff[\xc0-\xc2].{7}([\x01-\x04])", re.DOTALL)
SCANS = re.compile(rb"\xff\xda.{2}([\x01-\x04])", re.DOTALL)
JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"


def repaired(data: memoryview) -> Iterator[bytes]:
    """The file without its damaged metadata, then without any; nothing for other formats."""
    if data[: len(PNG_START)] == PNG_START:
        yield _png(data, partial(_is_whole, data))
        yield _png(data, lambda kind, content, crc: _is_critical(kind))
    elif data[:2] == b"\xff\xd8":
        yield _jpeg(data, lambda marker, content: marker == EXIF or _says_colours(marker, content))
        yield _jpeg(data, _says_colours)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield _webp(data)
    elif data[4:8] == b"ftyp":
        yield _without_exif_item(data)
    elif data[: len(JP2_START)] == JP2_START:
        yield data[: _jp2_end(data)].tobytes()


def needs_repair(data: memoryview) -> bool:
    """Whether Pillow opens the file, but would fail when it decodes the pixels."""
    if data[: len(PNG_START)] == PNG_START:
        return any(not _is_whole(data, *chunk) for chunk in chunks(data))
    return data[: len(JP2_START)] == JP2_START and _jp2_end(data) < len(data)


def ended(data: memoryview) -> bytes:
    """A JPEG that lacks its end mark, with one; empty for a JPEG that has it, or lacks pixels too.

    No pixel is missing where it does not matter what follows.
    """
    mark = bytes((0xFF, END))
    # Without the thumbnail, which an application segment holds.
    bare = _jpeg(data, lambda marker, content: False)
    if mark in bare or not _has_all_scans(bare):
        return b""
    # Half a mark is none of the pixels': theirs are followed by a zero.
    content = bytes(data).rstrip(b"\xff")
    followed = [content + 64 * other + mark for other in (b"\0", b"\x55")]
    pictures = {Image.open(io.BytesIO(each)).tobytes() for each in followed}
    return followed[0] if len(pictures) == 1 else b""


def _has_all_scans(jpeg: bytes) -> bool:
    """Whether there is a scan with the last bit of each coefficient, of a JPEG without application segments."""
    frame = FRAME.search(jpeg)
    if frame is None:
        return False
    parts = jpeg[frame.end() : frame.end() + 3 * frame[1][0] : 3]
    missing = {(part, place) for part in parts for place in range(64)}
    for scan in SCANS.finditer(jpeg):
        stop = scan.end() + 2 * scan[1][0]
        if len(jpeg) < stop + 3:
            return False
        first, last, bits = jpeg[stop : stop + 3]
        if not bits & 0x0F:
            missing -= {(part, place) for part in jpeg[scan.end() : stop : 2] for place in range(first, last + 1)}
    return not missing


def chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Kind, content and checksum of each chunk of a PNG, as far as the file goes."""
    place = len(PNG_START)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        # What lies behind its end is none of the PNG's.
        place += 12 + length if kind != b"IEND" else len(data)


def damaged_pixels(data: memoryview) -> str:
    """The chunk of a PNG's pixels whose checksum is wrong, "data" if it has no name: Pillow decodes it all the same. Empty if there is none."""
    is_png = data[: len(PNG_START)] == PNG_START
    for kind, content, crc in chunks(data) if is_png else ():
        if _is_critical(kind) and len(crc) == 4 and not _agrees(kind, content, crc):
            return kind.decode() if kind.isalpha() else "data"
    return ""


def _agrees(kind: bytes, content: memoryview, crc: memoryview) -> bool:
    return zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big") == crc


def _is_critical(kind: bytes) -> bool:
    return not kind[0] & 0x20


def _is_whole(data: memoryview, kind: bytes, content: memoryview, crc: memoryview) -> bool:
    if _is_critical(kind):
        return True
    if not _agrees(kind, content, crc):
        return False
    if kind == TRANSPARENCY:
        return len(content) in TRANSPARENCY_BYTES.get(data[COLOUR_TYPE], ())
    if kind in ANIMATION:
        return False
    if not hasattr(PngStream, f"chunk_{kind.decode('latin-1')}"):
        return True
    header, pixel, end = (_chunk(*part) for part in ONE_PIXEL)
    try:
        with Image.open(io.BytesIO(b"".join([PNG_START, header, _chunk(kind, content), pixel, end]))) as image:
            image.load()
    # Whatever Pillow raises on the chunk in the picture itself.
    except Exception:
        return False
    return True


def _chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    crc = zlib.crc32(content, zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(content)), kind, content, struct.pack(">I", crc)])


def _png(data: memoryview, keep: Callable[[bytes, memoryview, memoryview], bool]) -> bytes:
    parts: list[bytes | memoryview] = [PNG_START]
    for kind, content, crc in chunks(data):
        if keep(kind, content, crc):
            parts += [struct.pack(">I", len(content)), kind, content, crc]
    return b"".join(parts)


def _says_colours(marker: int, content: memoryview) -> bool:
    start, length = COLOUR_SEGMENTS.get(marker, (b"", 0))
    return length > 0 and content[: len(start)] == start and len(content) >= length


def _jpeg(data: memoryview, keep: Callable[[int, memoryview], bool]) -> bytes:
    """The file with only those application segments and comments that `keep` accepts."""
    out: list[memoryview] = [data[:2]]
    place = 2
    while place + 4 <= len(data) and not (data[place] == 0xFF and data[place + 1] in (SCAN, END)):
        marker = data[place + 1]
        if data[place] != 0xFF or marker in (0, 0xFF):
            place += 1  # A fill byte, or what does not belong between segments.
            continue
        stop = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == COMMENT) or keep(marker, data[place + 4 : stop]):
            out.append(data[place:stop])
        place = stop
    return b"".join([*out, data[place:]])


def _webp(data: memoryview) -> bytes:
    """Without EXIF and XMP."""
    out: list[memoryview] = []
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        stop = place + 8 + length + length % 2
        if kind not in (b"EXIF", b"XMP "):
            out.append(data[place:stop])
        place = stop
    body = b"WEBP" + b"".join(out)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _without_exif_item(data: memoryview) -> bytes:
    """An AVIF or HEIC file with its EXIF item renamed; no byte moves."""
    return re.sub(rb"(infe.{8})Exif", rb"\1none", data.tobytes(), flags=re.DOTALL)


def _jp2_end(data: memoryview) -> int:
    """The end of the pixels: OpenJPEG fails on unexpected boxes behind them."""
    place = 0
    while place + 16 <= len(data):
        length, kind, long_length = struct.unpack_from(">I4sQ", data, place)
        length = long_length if length == 1 else length
        if kind == b"jp2c" or length < 8:
            return place + length if length >= 8 else len(data)
        place += length
    return len(data)
