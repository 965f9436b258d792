"""Whether reading and writing overlap with the network: rates of `nla_cyclegan translate`, and of each of its stages alone.

    python tests/benchmarks/translate.py [--size 256] [--images 96]

Each line is a network, each column a rate: `network` of the network alone, on images that are read already; `files` of reading and
writing in threads, without a network; `in turns` of one after the other; `translate` of the whole command, `worker` of a worker of
`cluster translate`, without Ray. Both stages at once reach the slower one's rate at best: behind the last two is their share of it,
and of `in turns`. A real network takes the cores that the files need too: there `in turns` is what can be reached. Medians of rounds
that alternate.
"""

import argparse
import contextlib
import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from timing import header
from torch import Tensor, nn

from cluster.translation.listing import list_work
from cluster.translation.options import TranslationSettings
from cluster.translation.translator import Translator
from data_shards.cores import usable_cores
from data_shards.images.read import load_image
from data_shards.images.write import save_image
from data_shards.storage import locate
from nla_cyclegan.__main__ import main as command
from nla_cyclegan.commands import translate_files
from nla_cyclegan.inference.stages import image_threads, overlapped
from nla_cyclegan.inference.tiles import translate_batch
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.generator import Generator

WAIT_S = 0.015


class Waiting(nn.Module):
    """A stand-in whose work is elsewhere, as on a GPU: 15 ms an image."""

    config = GeneratorConfig()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        time.sleep(WAIT_S * len(x_BCHW))
        return x_BCHW


def draw(folder: Path, count: int, size: int) -> list[Path]:
    """Smooth pictures with some noise, as photographs are to JPEG and PNG."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse) + random.normal(0, 6, (size, size, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:05}.jpg", quality=90)
    return sorted(folder.iterdir())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def only_network(generator: nn.Module, images: list[Tensor], batch: int) -> None:
    for start in range(0, len(images), batch):
        translate_batch(generator, images[start : start + batch], 1024)  # type: ignore[arg-type]


def only_files(files: list[Path], out: Path) -> None:
    out.mkdir(exist_ok=True)

    def copy(file: Path) -> None:
        save_image(load_image(file), out / f"{file.stem}.png")

    with image_threads(usable_cores()) as pool:
        for _ in overlapped(files, copy, pool, lambda file: 1 / 8):
            pass


def whole(generator: nn.Module, files: list[Path], out: Path, batch: int) -> None:
    options = [
        "--weights",
        # Something that is there; what is loaded is the network at hand.
        str(files[0].parent),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--batch",
        str(batch),
        str(files[0].parent),
    ]
    with (
        mock.patch.object(translate_files, "load_generators", return_value={"B2A": generator}),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        if command(["translate", *options]):
            raise RuntimeError(f"not all images were translated: {said.getvalue()}")


def by_worker(generator: nn.Module, files: list[Path], out: Path, batch: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    work = list_work(locate(files[0].parent), locate(out), ".png")
    with mock.patch("ray.get", lambda reference: reference):
        settings = TranslationSettings("B2A", ".png", None, batch, 1024, "fp32")
        worker = Translator([generator], str(files[0].parent), str(out), settings, usable_cores(), use_gpu=False)
    if worker.translate(work.images).done != len(files):
        raise RuntimeError("not all images were translated")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="pixels of a side (default: 256)")
    parser.add_argument("--images", type=int, default=96, help="default: 96")
    parser.add_argument("--batch", type=int, default=8, help="default: 8")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--channels", type=int, nargs="*", default=[16, 64], help="of real networks (default: 16 64)")
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    print(header(torch.device("cpu")))
    print(
        f"{options.images} JPEG files of {options.size} x {options.size} px, written as PNG; medians of {options.rounds} rounds"
    )
    networks: dict[str, nn.Module] = {f"waits {1000 * WAIT_S:g} ms an image": Waiting()}
    for channels in options.channels:
        networks[f"{channels} channels"] = Generator(GeneratorConfig(base_channels=channels)).eval()
    print(f"{'images/s':24} {'network':>9} {'files':>9} {'in turns':>9}   translate                  worker")
    with tempfile.TemporaryDirectory() as folder:
        files = draw(Path(folder, "photos"), options.images, options.size)
        images = [load_image(file) for file in files]
        for name, network in networks.items():
            stages = {
                "network": partial(only_network, network, images, options.batch),
                "files": partial(only_files, files, Path(folder, "copies")),
                "translate": partial(whole, network, files, Path(folder, "out"), options.batch),
                "worker": partial(by_worker, network, files, Path(folder, "painted"), options.batch),
            }
            # The first calls choose kernels, and load Pillow's formats.
            for work in stages.values():
                work()
            taken: dict[str, list[float]] = {stage: [] for stage in stages}
            for _ in range(options.rounds):
                for stage, work in stages.items():
                    taken[stage].append(seconds(work))
            print(row(name, options.images, taken), flush=True)


def row(name: str, images: int, taken: Mapping[str, list[float]]) -> str:
    network, files = taken["network"], taken["files"]
    turns = [sum(each) for each in zip(network, files, strict=True)]
    slower = [max(each) for each in zip(network, files, strict=True)]
    cells = [f"{images / statistics.median(each):9.1f}" for each in (network, files, turns)]
    for stage in ("translate", "worker"):
        of_slower, of_turns = (
            statistics.median(one / whole for one, whole in zip(alone, taken[stage], strict=True))
            for alone in (slower, turns)
        )
        cells.append(f"{images / statistics.median(taken[stage]):8.1f} {of_slower:6.2f}x {of_turns:6.2f}x")
    return " ".join([f"{name:24}", *cells])


if __name__ == "__main__":
    main()
