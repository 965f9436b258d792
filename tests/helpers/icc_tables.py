"""ICC profiles of tables (ICC.1:2001-04, lut8Type), as printers and scanners have; Pillow makes those of curves alone."""

import struct
from itertools import product

import numpy as np
from numpy.typing import NDArray

CHANNELS = {b"RGB ": 3, b"CMYK": 4, b"Lab ": 3}
CLASSES = {b"RGB ": b"scnr", b"CMYK": b"prtr", b"Lab ": b"spac"}
D50 = (0.9642, 1.0, 0.8249)


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def table_profile(space: bytes, channel: int, *, inverted: bool = False) -> bytes:
    """A profile in which one channel of an image is its lightness (from dark to light, or inverted) and nothing has a colour."""
    channels = CHANNELS[space]
    corners = [corner[channel] for corner in product((0, 255), repeat=channels)]
    colours = b"".join(bytes([255 - value if inverted else value, 128, 128]) for value in corners)
    straight = bytes(range(256))
    head = b"mft1" + bytes(4) + bytes([channels, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = head + straight * channels + colours + straight * 3
    white = b"XYZ " + bytes(4) + fixed(*D50)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, len(white), b"A2B0", 156 + len(white), len(table))
    about = struct.pack(
        ">4sI4s4s4s12s4s28s", bytes(4), 0x02400000, CLASSES[space], space, b"Lab ", bytes(12), b"acsp", b""
    )
    body = about + fixed(*D50) + bytes(48) + tags + white + table
    return struct.pack(">I", 4 + len(body)) + body


def shown(lightness: NDArray[np.integer]) -> NDArray[np.float64]:
    """L* of 0 to 255 -> the grey of sRGB (IEC 61966-2-1), 0 to 255."""
    star = lightness / 2.55
    linear = np.where(star > 8, ((star + 16) / 116) ** 3, star / 903.3)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
