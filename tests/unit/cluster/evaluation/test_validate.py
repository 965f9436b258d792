"""What an evaluation on held-out images measures, against the metrics themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from image_folders import make_dataset
from inception_file import write_inception

from cluster.ranks.world import World
from cluster.settings.preflight import prepare
from cluster.training.loop import train
from data_shards import open_dataset, read_split
from data_shards.errors import UserError
from data_shards.images.transforms import whole
from data_shards.storage.folder import RunFolder
from nla_cyclegan import load_generators
from nla_cyclegan.__main__ import main as nla_cyclegan
from nla_cyclegan.metrics.distances import kernel_distance
from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.metrics.similarity import ssim
from nla_cyclegan.metrics.sliced_wasserstein import sliced_wasserstein
from nla_cyclegan.pixels import to_float, to_uint8


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


def test_an_evaluation_is_that_of_the_last_checkpoints_generators(uri: str, tmp_path: Path) -> None:
    write_inception(tmp_path / "inception.pth")
    config = tiny.config(
        uri, tmp_path, schedule={"images": 16},
        validation={"every": 16, "images": 4, "inception": str(tmp_path / "inception.pth")},
    )  # fmt: skip
    world, folder = World(), RunFolder(config.storage, config.name)
    measured = train(config, world)

    photos, paintings = (
        torch.stack([image for _, image in read_split(open_dataset(uri), split, size=20, indices=range(4), fit=whole)])
        for split in ("testB", "testA")
    )
    with torch.no_grad():
        painted = to_uint8(load_generators(folder.path)["B2A"](to_float(photos)))
    features = Inception(tmp_path / "inception.pth")
    assert measured["ssim_B2A"] == pytest.approx(ssim(photos, painted).mean().item())
    assert measured["swd_B2A"] == pytest.approx(sliced_wasserstein(painted, paintings).mean)
    kernel = kernel_distance(features(painted), features(paintings)).value
    assert measured["kid_B2A"] == pytest.approx(1e3 * kernel, rel=1e-4)
    assert measured["ssim_A2B"] != measured["ssim_B2A"]


def test_kid_without_weights_or_images_is_refused(uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path, validation={"every": 16, "images": 2, "inception": str(tmp_path / "none.pth")})
    with pytest.raises(UserError) as caught:
        prepare(config)
    missing, few = str(caught.value).splitlines()
    assert missing == f"validation.inception: {tmp_path}/none.pth: no such file"
    assert "needs 3 held-out images of each domain, got 2" in few


def test_images_too_small_to_be_compared_are_refused(uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path, validation={"every": 16, "images": 4}, data={"crop_size": 12, "load_size": 15})
    with pytest.raises(
        UserError, match=r"^validation\.every: data\.load_size is 15 px, and distances .* from 16 px on"
    ):
        prepare(config)


@pytest.mark.parametrize("step", [{}, {"channels_last": True, "ema_half_life": 8}, {"precision": "fp64"}], ids=str)
def test_evaluate_repeats_it_to_the_last_digit(tmp_path: Path, step: dict[str, Any]) -> None:
    # JPEG files that are not square, and a size that is no multiple of 4.
    uri, images = make_dataset(tmp_path, tiny.SPLITS).uri, tmp_path / "images"
    config = tiny.config(
        uri, tmp_path / "runs", schedule={"images": 8}, validation={"every": 8}, data={"load_size": 39}, step=step
    )
    measured = train(config, World())
    for direction, inputs, real in (("B2A", "testB", "testA"), ("A2B", "testA", "testB")):
        folders = ["--inputs", f"{images}/{inputs}", "--real", f"{images}/{real}", "--inception", "none"]
        written = ["--json", str(tmp_path / "scores.json"), "--direction", direction]
        assert nla_cyclegan(["evaluate", "--weights", str(tmp_path / "runs" / "tiny"), *folders, *written]) == 0
        scores = json.loads((tmp_path / "scores.json").read_text())[direction]
        assert scores["size"] == 36
        assert scores["translations"]["swd"] == measured[f"swd_{direction}"]
        assert scores["translations"]["ssim_content"] == measured[f"ssim_{direction}"]
