"""Writes what a commit writes, as small as it gets, for test_old_formats.py: run it in a checkout of that commit.

    git worktree add /tmp/checkout COMMIT
    PYTHONPATH=/tmp/checkout python tests/compatibility/make.py COMMIT

It uses command lines and the names that the packages export, so it runs with few changes, or none, at any commit.
"""

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from data_shards import StreamConfig, UnpairedStream, open_dataset, read_split
from nla_cyclegan import Generator, GeneratorConfig, load_generator, save_generator

SPLITS = {"trainA": 3, "trainB": 4, "testA": 2, "testB": 2}
SIDE, IMAGES = 16, 8
DATA = {"load_size": SIDE + 2, "crop_size": SIDE, "global_batch": 2, "loader_workers": 0}
RUN = {
    "name": "run",
    "storage": "runs",
    "data": {"uri": "packed", **DATA},
    "model": {
        "generator": {"base_channels": 2, "num_blocks": 1, "nonlocal_blocks": [0]},
        "discriminator": {"base_channels": 1, "num_layers": 1},
    },
    "step": {"pool_size": 1},
    "schedule": {"images": IMAGES},
    "checkpoint": {"every": IMAGES // 2, "keep": 9},
    "observe": {"every": 2, "tensorboard": False, "previews": None},
    "validation": {"every": IMAGES // 2, "images": 2},
}
# All its states are those of the run half way, and compress as one: rates are still constant there.
SWEEP = {
    "name": "sweep",
    "storage": "sweeps",
    "train": "run.yaml",
    "override": {"schedule.images": IMAGES // 2},
    "space": {"schedule.constant": {"grid": [0.7, 0.8]}},
    "search": "grid",
    "trials": 1,
}


def write_images() -> None:
    """Gradients, which compress well; one JPEG among them."""
    for domain, (split, count) in enumerate(SPLITS.items()):
        folder = Path("images") / split
        folder.mkdir(parents=True)
        for index in range(count):
            image = Image.linear_gradient("L").resize((SIDE + 4, SIDE + 4 + index)).rotate(40 * index + 90 * domain)
            colours = [image.point(lambda value, gain=gain: value * gain // 4) for gain in (4 - domain, 1 + index, 3)]
            suffix = "jpg" if split == "trainB" and index == 0 else "png"
            Image.merge("RGB", colours).save(folder / f"{index}.{suffix}")


def samples(batches: int = 4) -> dict[str, Any]:
    """What a training reads from the dataset, and the images of a split, as keys and hashes of pixels."""
    dataset = open_dataset("packed")
    config = StreamConfig.model_validate({name: value for name, value in DATA.items() if name != "global_batch"})
    with UnpairedStream(dataset, config, seed=3, global_batch=2) as stream:
        read = [next(stream) for _ in range(batches)]
    return {
        "keys": [[*batch.keys_a, *batch.keys_b] for batch in read],
        "pixels": [digest(torch.cat([batch.a, batch.b])) for batch in read],
        "testB": {key: digest(image) for key, image in read_split(dataset, "testB", size=SIDE)},
        "fingerprint": dataset.fingerprint,
    }


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], check=True)


def export() -> None:
    """Two single files; the layout of other projects has no place for a non-local block."""
    call("nla_cyclegan", "export", "--weights", "runs/run", "--format", "safetensors", "--out", "generator.safetensors")
    plain = Generator(GeneratorConfig(base_channels=2, num_blocks=0, nonlocal_blocks=()))
    plain.load_state_dict(load_generator("runs/run").state_dict(), strict=False)
    save_generator(plain, "plain.safetensors")
    call(
        "nla_cyclegan", "export", "--weights", "plain.safetensors", "--format", "junyanz", "--out", "latest_net_G_B.pth"
    )


def write_everything() -> None:
    write_images()
    call("data_shards", "pack", "images", "packed")
    shutil.rmtree("images")
    Path("samples.json").write_text(json.dumps(samples(), indent=1))
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    call("cluster", "train", "--config", "run.yaml", "--local")
    # What came of the second half; a test goes through it again.
    shutil.copy("runs/run/metrics.jsonl", "metrics.jsonl")
    shutil.rmtree(f"runs/run/checkpoint_{IMAGES:012d}")
    export()
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    call("tuning", "sweep", "--config", "sweep.yaml")


def main() -> None:
    (commit,) = sys.argv[1:]
    archive = Path(__file__).with_name(f"{commit}.tar.xz")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_everything()
        with (
            lzma.open(archive, "wb", preset=9 | lzma.PRESET_EXTREME) as file,
            tarfile.open(fileobj=file, mode="w") as tar,
        ):
            tar.add(".")
    print(f"{archive}: {archive.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
