"""Explains why Pillow does not open a file, by the file's first bytes, and what to do about it."""

from data_shards.storage.checked import BLANK, in_place_of

CONVERT = "convert it to PNG or JPEG"
BRANDS = {b"avi": "an AVIF image", b"hei": "a HEIC photo", b"mif": "a HEIC photo", b"msf": "a HEIC photo"}
# (bytes at the start, what the file is, what to do)
KINDS = (
    ((b"\xff\n", b"\0\0\0\x0cJXL "), "a JPEG XL image", CONVERT),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"FUJIFILMCCD-RAW", b"IIU\0"), "a raw photo or a TIFF of a rare kind", CONVERT),
    ((b"%PDF", b"%!PS", b"\xc5\xd0\xd3\xc6", b"<svg"), "a document or a drawing", CONVERT),
    ((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM"), "an image with a damaged header", "restore it from a copy"),
    ((b"PK\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!"), "an archive, or compressed", "unpack it"),
    ((b"\x93NUMPY", b"\x89HDF"), "an array", CONVERT),
    ((b"v/1\x01", b"#?radiance", b"#?rgbe"), "an image of high dynamic range", CONVERT),
    ((bytes(64),), "zeros where an image begins", "copy or download it again"),
)  # fmt: skip
HEAD_BYTES = 512


def why_unknown(head: bytes) -> str:
    """Why a file with these first bytes cannot be read, and what to do, as a phrase for a message."""
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp":
        kind = BRANDS.get(head[8:11])
        return f"{kind}, which Pillow does not read here: {CONVERT}" if kind else "a video: extract images from it"
    if head[128:132] == b"DICM":
        return f"a DICOM file, which Pillow does not read: {CONVERT}"
    if in_place := in_place_of(head):
        return in_place
    text = head.lstrip(BLANK).lower()
    for starts, kind, advice in KINDS:
        if head.startswith(starts) or text.startswith(starts):
            return f"{kind}, which Pillow does not read: {advice}"
    return "not an image file that Pillow reads"
