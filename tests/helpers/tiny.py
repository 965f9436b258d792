"""A dataset and a configuration small enough to train in a second."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cluster.records import observe
from cluster.settings.config import RunConfig
from data_shards.packing.pack import pack
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import CheckpointReader, complete_checkpoints

SPLITS = {"trainA": 10, "trainB": 12, "testA": 5, "testB": 4}
SIZE = 24
# On a busy machine a first step is slow by chance, and tests compare what a run says.
observe.SLOW_STEP_S = math.inf


def pack_dataset(folder: Path) -> str:
    """Pack random images; the path of the dataset."""
    random = np.random.default_rng(0)
    for split, count in SPLITS.items():
        (folder / "images" / split).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index:03}.png")
    pack(folder / "images", str(folder / "packed"))
    return str(folder / "packed")


def settings(uri: str, storage: Path, **changes: Any) -> dict[str, Any]:
    """The fields of a run of 12 steps of 4 image pairs; `changes` replace sections' fields: step={"pool_size": 0}."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "storage": str(storage),
        "data": {"uri": uri, "load_size": 20, "crop_size": 16, "global_batch": 4, "loader_workers": 0},
        "model": {
            "generator": {"base_channels": 2, "num_blocks": 2, "nonlocal_blocks": [1]},
            "discriminator": {"base_channels": 2, "num_layers": 1},
        },
        "step": {"pool_size": 6},
        "schedule": {"images": 48},
        "checkpoint": {"every": 16},
        "observe": {"every": 8, "tensorboard": False, "previews": None},
    }
    for section, change in changes.items():
        fields[section] = {**fields.get(section, {}), **change} if isinstance(change, dict) else change
    return fields


def config(uri: str, storage: Path, **changes: Any) -> RunConfig:
    return RunConfig.model_validate(settings(uri, storage, **changes))


def newest(folder: RunFolder) -> dict[str, Tensor]:
    """All tensors of a run's newest checkpoint, as `file/name`."""
    name = complete_checkpoints(folder)[0]
    reader = CheckpointReader(folder.location.inside(name))
    files = [file for file in folder.files_of(name) if file.endswith(".safetensors")]
    return {f"{file}/{key}": value for file in files for key, value in reader.tensors(file).items()}
