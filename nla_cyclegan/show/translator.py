"""The page's backend: translations and attention maps of an uploaded image, by any checkpoint of a run."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.errors import UserError
from data_shards.images.decode.open import UnreadableImageError
from data_shards.images.read import decoded, reduced
from data_shards.images.write import to_picture
from data_shards.storage import list_folder, locate
from data_shards.storage.uri import join_uri
from nla_cyclegan.inference.images import attention_maps, translate_images, translation_mask
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pictures.grids import pixel_at
from nla_cyclegan.pictures.overlay import attention_overlay, mask_picture
from nla_cyclegan.weights.checkpoint_names import age, images_of
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.generators import load_generators
from nla_cyclegan.weights.hub import is_repository, read_repository
from nla_cyclegan.weights.names import OPPOSITE, Direction, direction_of
from nla_cyclegan.weights.references import Reference, is_file, stored

# Checkpoints whose generators stay in memory.
KEPT = 4
Generators = dict[Direction, Generator]


@dataclass(frozen=True)
class Translation:
    """PNG files; `back` is None without the generator of the other direction, `mask` where no output is masked."""

    image: bytes
    translated: bytes
    back: bytes | None
    mask: bytes | None


class Translator:
    """Translates uploaded images, one at a time to bound the device's memory.

    Args:
        weights: as `--weights` takes them.
        size: images of more than size x size pixels are reduced to that.

    Raises: UserError where there are no such weights.
    """

    def __init__(self, weights: str, size: int, device: torch.device) -> None:
        self.weights, self.size, self.device = weights, size, device
        self._turn = threading.Lock()
        self._loaded: OrderedDict[str, Generators] = OrderedDict()
        self.directions: list[Direction] = list(self._generators([*self.choices()][-1]))

    def choices(self) -> dict[str, int | None]:
        """The checkpoints that are complete by now, oldest first, and the images seen at each; one without a name if the weights are of
        a single one. Raises: UserError where storage does not answer."""
        reference = Reference.of(self.weights)
        place = locate(reference.uri)
        if reference.choice or is_file(place):
            return {"": None}
        checkpoints = stored(place)
        complete = [name for name, files in checkpoints.items() if world_of(files)] or list(checkpoints)
        # The newer one of two with the same number of images.
        newest = {images_of(name): name for name in sorted(complete, key=age)}
        return {name: images for images, name in newest.items()} or {"": None}

    def translate(self, upload: bytes, direction: Direction, checkpoint: str) -> Translation:
        """Raises: UserError where the upload is no image, or the checkpoint is gone."""
        with self._turn:
            image_CHW = self._read(upload)
            generators = self._generators(checkpoint)
            generator = self._of(generators, direction)
            translated_CHW = translate_images(generator, image_CHW[None])[0]
            back = generators.get(OPPOSITE[direction])
            back_CHW = None if back is None else translate_images(back, translated_CHW[None])[0]
            mask_HW = translation_mask(generator, image_CHW)
            return Translation(
                _png(image_CHW),
                _png(translated_CHW),
                None if back_CHW is None else _png(back_CHW),
                None if mask_HW is None else _png(mask_picture(mask_HW)),
            )

    def attention(
        self, upload: bytes, direction: Direction, checkpoint: str, fractions: tuple[float, float]
    ) -> dict[int, bytes]:
        """Block -> PNG file of its attention from a point, (x, y) in 0..1 of width and height. Raises: as `translate`."""
        with self._turn:
            image_CHW = self._read(upload)
            point = pixel_at(image_CHW, fractions)
            maps = attention_maps(self._of(self._generators(checkpoint), direction), image_CHW, point)
            longer = max(image_CHW.shape[-2:])
            return {block: _png(attention_overlay(image_CHW, map_HW, point, longer)) for block, map_HW in maps.items()}

    def end(self) -> None:
        """Wait for the translation that is under way; all later ones wait for ever. Call it before the program ends."""
        # A thread that the end of the interpreter finds inside torch aborts the process.
        self._turn.acquire()

    def _read(self, upload: bytes) -> Tensor:
        try:
            return reduced(decoded(upload), self.size**2)
        except UnreadableImageError as error:
            raise UserError(f"not a readable image ({error})") from error

    def _of(self, generators: Generators, direction: Direction) -> Generator:
        if direction not in generators:
            raise UserError(f"{self.weights}: holds only {', '.join(generators)}")
        return generators[direction]

    def _generators(self, checkpoint: str) -> Generators:
        if checkpoint not in self._loaded:
            found = self._load(checkpoint)
            self._loaded[checkpoint] = {direction: each.to(self.device) for direction, each in found.items()}
            if len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(checkpoint)
        return self._loaded[checkpoint]

    def _load(self, checkpoint: str) -> Generators:
        if checkpoint:
            return load_generators(join_uri(Reference.of(self.weights).uri, checkpoint))
        place = locate(self.weights)
        if is_file(place):
            return load_generators(self.weights, [direction_of(self.weights) or "B2A"])
        entries = list_folder(place)
        if is_repository(entries):
            return read_repository(place)
        named = [direction for name in entries if (direction := direction_of(name))]
        return load_generators(self.weights, named) if len(named) == 1 else load_generators(self.weights)


def _png(image_CHW: Tensor) -> bytes:
    content = io.BytesIO()
    # Fast rather than small: it is sent to a browser on this machine only.
    to_picture(image_CHW).save(content, "PNG", compress_level=1)
    return content.getvalue()
