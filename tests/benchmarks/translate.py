"""Whether reading and writing overlap with the network: rates of `nla_cyclegan translate`, and of each of its stages alone.

    python tests/benchmarks/translate.py [--size 256] [--images 96] [--cluster]

Each line is a network. `network` is the time that it takes of all images that are read already; `files` the time that threads take
to read and write all of them without a network; `translate` the whole command. With both stages at once at best the slower one's
rate is reached: `of slower` is that share. `in turns` is what one after the other would take. Where the network takes all cores
itself, as a real one does on a CPU, the stages share them: `of sum` is the rate against that of both stages' work, one after the other,
on all cores. Medians of rounds that alternate.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from timing import header
from torch import Tensor, nn

from data_shards.cores import usable_cores
from data_shards.images.read import load_image
from data_shards.images.write import save_image
from nla_cyclegan.__main__ import main as command
from nla_cyclegan.commands import translate_files
from nla_cyclegan.inference.stages import ahead, image_threads
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
        for _ in ahead(files, copy, pool, lambda file: 1 / 8):
            pass


def whole(generator: nn.Module, files: list[Path], out: Path, batch: int) -> None:
    options = [
        "--weights",
        "stand-in",
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
        contextlib.redirect_stderr(io.StringIO()),
    ):
        if command(["translate", *options]):
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
    print(f"{'images/s':24} {'network':>9} {'files':>9} {'translate':>10} {'in turns':>9} {'of slower':>10}")
    with tempfile.TemporaryDirectory() as folder:
        files = draw(Path(folder, "photos"), options.images, options.size)
        images = [load_image(file) for file in files]
        for name, network in networks.items():
            stages = {
                "network": lambda network=network: only_network(network, images, options.batch),
                "files": lambda: only_files(files, Path(folder, "copies")),
                "translate": lambda network=network: whole(network, files, Path(folder, "out"), options.batch),
            }
            taken: dict[str, list[float]] = {stage: [] for stage in stages}
            for _ in range(options.rounds):
                for stage, work in stages.items():
                    taken[stage].append(seconds(work))
            rates = {stage: options.images / statistics.median(each) for stage, each in taken.items()}
            turns = 1 / (1 / rates["network"] + 1 / rates["files"])
            of_slower = statistics.median(
                max(network_s, files_s) / whole_s
                for network_s, files_s, whole_s in zip(*(taken[stage] for stage in stages), strict=True)
            )
            row = " ".join(f"{rate:9.1f}" for rate in (rates["network"], rates["files"]))
            print(f"{name:24} {row} {rates['translate']:10.1f} {turns:9.1f} {of_slower:9.2f}x", flush=True)


if __name__ == "__main__":
    main()
