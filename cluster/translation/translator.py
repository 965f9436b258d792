"""A worker: reads, translates and writes the images of each call concurrently. Ray Data starts it, and restarts it if it is lost."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from cluster.machines.device import rank_device
from cluster.translation.calls import Report, received
from cluster.translation.options import TranslationSettings
from data_shards.errors import UserError
from data_shards.images.decode.open import UnreadableImageError
from data_shards.images.read import decoded, ready_for_threads
from data_shards.images.signatures import HEAD_BYTES, SUFFIXES, is_drawn, looks_like_image
from data_shards.images.write import LONGEST_SIDE, encoded
from data_shards.storage import Location, locate, read_file, write_file
from nla_cyclegan.inference.images import padded_pixels
from nla_cyclegan.inference.stages import batch_share, by_size, overlapped
from nla_cyclegan.inference.tiles import smallest_tile, translate_batch
from nla_cyclegan.model.generator import Generator

# Approximate, for a JPEG photograph; used to bound memory before a file is read.
PIXELS_A_BYTE = 4
NO_IMAGE = "no image by its bytes"


class Translator:
    """Translates the images that tables name, see `Work`.

    Two calls may run at once: one's images are read while the other's last ones are written.

    Args:
        generators: the one in it is Ray's reference to the generator, which each machine gets once.
        source, out: folders, paths or URIs.
        threads: that read and write, and of torch on a CPU.

    A UserError is returned in the report, because Ray Data would log an exception with its traceback.
    """

    def __init__(
        self, generators: list[Any], source: str, out: str, settings: TranslationSettings, threads: int, use_gpu: bool
    ) -> None:
        import ray

        self._problem: UserError | None = None
        try:
            self.device = rank_device(use_gpu, 0, to_cpu="translate on CPU cores with --no-gpu")
            self.source, self.out = locate(source), locate(out)
        except UserError as error:
            self._problem = error
            return
        torch.set_num_threads(threads)
        # As `nla_cyclegan translate`.
        torch.backends.cudnn.deterministic = True
        generator: Generator = ray.get(generators[0])
        self.generator, self.settings = generator.to(self.device).eval(), settings
        self._network, self._has_read = threading.Lock(), False
        ready_for_threads()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")

    def __call__(self, given: pa.Table) -> dict[str, list[str]]:
        """Args: given: `images`, tables as `sent` makes them.

        Returns: of each table a `Report` as JSON.
        """
        return {"report": [json.dumps(asdict(self._report(received(table)))) for table in given["images"].to_pylist()]}

    def _report(self, images: pa.Table) -> Report:
        try:
            if self._problem is not None:
                raise self._problem
            return self.translate(images)
        except UserError as error:
            return Report(error=str(error), retryable=error.retryable)

    def translate(self, images: pa.Table) -> Report:
        """Translate them. Raises: UserError where storage refuses or stays away, or the device has too little memory."""
        left_out: dict[str, str] = {}
        rows = images.select(["name", "target", "size"]).to_pylist()
        read = overlapped(rows, self._read, self._pool, self._share)
        translated = self._translated(read, left_out)
        written = overlapped(translated, self._write, self._pool, self._translated_share, prompt=True)
        return Report(sum(1 for _ in written), left_out)

    def _read(self, row: dict[str, Any]) -> tuple[dict[str, Any], Tensor | str]:
        """The image, or why it is left out."""
        try:
            content = read_image(self.source, row["name"])
            self._has_read = True
            image = content if isinstance(content, str) else decoded(content, shorter=self.settings.size)
        except UserError as error:
            # If nothing can be read from a bucket, the machine is refused, not the image.
            if error.retryable or (self.source.is_object_store and not self._has_read):
                raise
            reason = f"not a readable image ({error})" if isinstance(error, UnreadableImageError) else str(error)
            return row, reason
        return row, image if isinstance(image, str) else self._fitting(image)

    def _fitting(self, image: Tensor) -> Tensor | str:
        longest, (height, width) = LONGEST_SIDE[self.settings.suffix], image.shape[-2:]
        if max(height, width) > longest:
            return f"{width:,} x {height:,} px, and {self.settings.suffix} holds up to {longest:,} a side: give another --format"
        smallest = smallest_tile(self.generator.config)
        if padded_pixels(height, width) > self._most and self.settings.tile < smallest:
            return f"{width:,} x {height:,} px, which takes --tile {smallest} or more"
        return image

    def _translated(
        self, read: Iterator[tuple[dict[str, Any], Tensor | str]], left_out: dict[str, str]
    ) -> Iterator[tuple[str, Tensor]]:
        def readable() -> Iterator[tuple[dict[str, Any], Tensor]]:
            for row, image in read:
                if isinstance(image, str):
                    left_out[row["name"]] = image
                else:
                    yield row, image

        for batch in by_size(readable(), self.settings.batch, self._most):
            try:
                with self._network:
                    translated = translate_batch(
                        self.generator,
                        [image for _, image in batch],
                        self.settings.tile,
                        precision=self.settings.precision,
                    )
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"{batch[0][0]['name']}: the device is out of memory: give a smaller --tile, which also bounds a batch"
                ) from error
            yield from ((row["target"], image) for (row, _), image in zip(batch, translated, strict=True))

    def _write(self, translated: tuple[str, Tensor]) -> None:
        target, image = translated
        write_file(self.out, target, encoded(image, self.settings.suffix))

    @property
    def _most(self) -> int:
        return self.settings.tile**2

    def _share(self, row: dict[str, Any]) -> float:
        return max(1 / self.settings.batch, PIXELS_A_BYTE * row["size"] / self._most)

    def _translated_share(self, translated: tuple[str, Tensor]) -> float:
        height, width = translated[1].shape[-2:]
        return batch_share(height, width, self.settings.batch, self._most)


def read_image(source: Location, name: str) -> bytes | str:
    """The content of an image file, or the reason to leave it out: missing, not an image, or drawn by this project.

    Raises: UserError where storage refuses or stays away.
    """
    if Path(name).suffix.lower() not in SUFFIXES:
        head = read_file(source, name, most=HEAD_BYTES)
        if head is not None and not looks_like_image(head):
            return NO_IMAGE
    content = read_file(source, name)
    if content is None:
        return "it was there when IN was listed, and is gone"
    return "drawn by this project (attention, grids)" if is_drawn(content) else content
