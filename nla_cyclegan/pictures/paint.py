"""Translates a single picture, for use in notebooks."""

from PIL import Image

from data_shards.errors import expect_type
from data_shards.images.decode.colour import to_srgb
from data_shards.images.read import to_tensor
from data_shards.images.write import to_picture
from nla_cyclegan.inference.tiles import smallest_tile, translate_batch
from nla_cyclegan.model.generator import Generator

# Side in pixels of the largest square that is translated at once.
TILE = 1024


def paint(generator: Generator, picture: Image.Image) -> Image.Image:
    """The translation of a picture of any mode and size, RGB and of the same size; on the device of the generator.

    A picture of more than TILE x TILE pixels is translated in tiles. Raises: TypeError for what is no PIL image.
    """
    expect_type("picture", picture, Image.Image, "a PIL image: PIL.Image.open(FILE); translate_images takes tensors")
    image_CHW = to_tensor(to_srgb(picture))
    tile = max(TILE, smallest_tile(generator.config))
    return to_picture(translate_batch(generator, [image_CHW], tile)[0])
