"""The EXIF tag Orientation. Pillow applies it to TIFF files while it loads them, and to no other format."""

from PIL import Image

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


def orientation(image: Image.Image) -> int:
    """1 to 8; 1 if the file has none, or an invalid one."""
    try:
        value = image.getexif().get(ORIENTATION)
        # As in Pillow, which rotates TIFF files itself: neither "6" nor (6, 6) is an orientation.
        return int(value) if value in UPRIGHT else 1
    # Pillow raises nearly anything on invalid EXIF data; viewers show the image as it is.
    except Exception:
        return 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as shown, of an image that is opened and not loaded."""
    # From a TIFF's own tags: Pillow rotates TIFF files while it loads them, and its versions differ on the size before that.
    size = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size  # type: ignore[attr-defined]
    return size[::-1] if orientation(image) in SIDEWAYS else size


def upright(image: Image.Image) -> Image.Image:
    """The pixels of a loaded image, as shown."""
    turn = orientation(image)
    return image if turn == 1 else image.transpose(UPRIGHT[turn])
