"""What an evaluation on held-out images measures, against the metrics themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from image_folders import make_folder, picture
from inception_file import remember_features, write_inception
from measured import evaluate_images, lab_distance, sliced_wasserstein

from cluster.evaluation.held_out import HeldOut
from cluster.evaluation.validate import Validation
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.observe import MetricsLog
from cluster.settings.preflight import prepare
from cluster.training.loop import train
from data_shards import open_dataset, read_split
from data_shards.errors import UserError
from data_shards.packing.pack import pack
from data_shards.storage.folder import RunFolder
from nla_cyclegan import Generator, TrainingStep, load_generators
from nla_cyclegan.__main__ import main as nla_cyclegan
from nla_cyclegan.metrics.distances import KernelDistance, kernel_distance
from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.metrics.score import KERNEL, PATCHES, definition, scores_of
from nla_cyclegan.metrics.similarity import scene_ssim, ssim
from nla_cyclegan.pixels import to_float, to_uint8
from nla_cyclegan.weights.stored_score import StoredScore, score_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("inception") / "inception.pth"
    write_inception(file)
    return file


def test_an_evaluation_is_that_of_the_last_checkpoints_generators(
    uri: str, inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_features(monkeypatch)
    config = tiny.config(
        uri, tmp_path, schedule={"images": 16},
        validation={"every": 16, "images": 3, "inception": str(inception)},
    )  # fmt: skip
    world, folder = World(), RunFolder(config.storage, config.name)
    measured = train(config, world)

    photos, paintings = (
        torch.stack(
            [image for _, image in read_split(open_dataset(uri), split, size=20, indices=range(3), fit="stretch")]
        )
        for split in ("testB", "testA")
    )
    with torch.no_grad():
        painted = to_uint8(load_generators(folder.path)["B2A"](to_float(photos)))
    features = Inception(inception)
    assert measured["ssim_B2A"] == pytest.approx(ssim(photos, painted).mean().item())
    assert measured["scene_B2A"] == pytest.approx(scene_ssim(photos, painted).mean().item())
    assert measured["lab_B2A"] == pytest.approx(lab_distance(painted, paintings))
    assert measured["inputs_lab_B2A"] == pytest.approx(lab_distance(photos, paintings))
    assert measured["inputs_swd_B2A"] == pytest.approx(sliced_wasserstein(photos, paintings).mean)
    assert measured["swd_B2A"] == pytest.approx(sliced_wasserstein(painted, paintings).mean)
    kernel = kernel_distance(features(painted), features(paintings)).value
    assert measured["kid_B2A"] == pytest.approx(1e3 * kernel, rel=1e-4)
    assert measured["ssim_A2B"] != measured["ssim_B2A"]

    # The score is that of `evaluate`, and the checkpoint has it; noise is not told from noise by KID.
    assert measured["score_B2A"] == pytest.approx(evaluate_images(photos, painted, paintings, features).score, rel=1e-4)
    assert measured["score"] == scores_of(measured, PATCHES)["score"]
    stored = score_of(folder, "checkpoint_000000000016")
    assert stored == StoredScore(measured["score"], definition(PATCHES))


def test_the_score_is_by_kid_where_that_tells_the_domains_apart(
    uri: str, inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = {"every": 16, "images": 4, "inception": str(inception)}
    # The distances are given; what they would be of is not computed.
    monkeypatch.setattr(Inception, "__call__", lambda self, images: images.float().mean((1, 2, 3))[:, None])
    monkeypatch.setattr(
        "cluster.evaluation.validate.kernel_distance", lambda a, b: KernelDistance(a.mean().item() + 9, 0.1)
    )
    config = tiny.config(uri, tmp_path, schedule={"images": 16}, validation=validation)
    measured = train(config, World())
    assert measured["score"] == scores_of(measured, KERNEL)["score"] != scores_of(measured, PATCHES)["score"]
    stored = score_of(RunFolder(config.storage, config.name), "checkpoint_000000000016")
    assert stored == StoredScore(measured["score"], definition(KERNEL))


def test_generators_that_copy_score_exactly_1(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "forward", lambda self, x: x)
    config = tiny.config(uri, tmp_path, validation={"every": 16, "images": 4})
    world, dataset = World(), open_dataset(uri)
    clock = Clock.of(config.schedule, dataset, 4)
    log = MetricsLog(config.observe, clock, world)
    validation = Validation(config.validation, dataset, log, lambda metrics: None, size=16)
    step = TrainingStep(config.model, config.loss, config.optimizer, config.step, seed=0, global_batch=4)
    measured = validation.measure(step)
    assert [measured[name] for name in ("score", "score_A2B", "score_B2A", "ssim_A2B")] == [1, 1, 1, 1]


def test_domains_of_the_same_images_have_no_score(tmp_path: Path) -> None:
    tiny.pack_dataset(tmp_path)
    images = tmp_path / "images"
    for name in ("000", "001", "002", "003"):
        (images / "testA" / f"{name}.png").write_bytes((images / "testB" / f"{name}.png").read_bytes())
    (images / "testA" / "004.png").unlink()
    pack(images, str(tmp_path / "same"))
    config = tiny.config(
        str(tmp_path / "same"), tmp_path, schedule={"images": 16}, validation={"every": 16, "images": 4}
    )
    said: list[str] = []
    measured = train(config, World(), say=said.append)
    assert "swd" in measured
    assert "score" not in measured
    assert (
        len([line for line in said if line.startswith("no score: the held-out images of both domains are the same")])
        == 1
    )
    assert score_of(RunFolder(config.storage, config.name), "checkpoint_000000000016") is None


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


@pytest.mark.parametrize(
    ("fit", "step"),
    [("stretch", {}), ("keep", {"channels_last": True, "ema_half_life": 8}), ("crop", {"precision": "fp64"})],
)
def test_evaluate_repeats_it_to_the_last_digit(tmp_path: Path, fit: str, step: dict[str, Any]) -> None:
    # JPEG files that are not square, of several sizes, and a size that is no multiple of 4.
    images = make_folder(tmp_path / "images", tiny.SPLITS)
    for number, size in enumerate(((48, 40), (20, 61), (31, 30), (330, 41))):
        picture(number, *size).save(images / "testA" / f"0{number}10.jpg", quality=90)
        picture(9 + number, *size).save(images / "testB" / f"{number}110.jpg", quality=90)
    pack(images, str(tmp_path / "shards"))
    config = tiny.config(
        str(tmp_path / "shards"), tmp_path / "runs", schedule={"images": 8}, validation={"every": 8},
        data={"load_size": 39, "fit": fit}, step=step,
    )  # fmt: skip
    measured = train(config, World())
    for direction, inputs, real in (("B2A", "testB", "testA"), ("A2B", "testA", "testB")):
        folders = ["--inputs", f"{images}/{inputs}", "--real", f"{images}/{real}", "--inception", "none"]
        written = ["--json", str(tmp_path / "scores.json"), "--direction", direction]
        assert nla_cyclegan(["evaluate", "--weights", str(tmp_path / "runs" / "tiny"), *folders, *written]) == 0
        written_there = json.loads((tmp_path / "scores.json").read_text())
        scores = written_there[direction]
        assert (scores["size"], written_there.get("fit", "stretch")) == (36, fit)
        assert scores["translations"]["swd"] == measured[f"swd_{direction}"]
        assert scores["translations"]["ssim_content"] == measured[f"ssim_{direction}"]
        for name in ("lab", "scene"):
            assert scores["translations"][name] == measured[f"{name}_{direction}"]
        assert scores["score"] == measured[f"score_{direction}"]


def test_other_held_out_images_than_before_are_reported() -> None:
    said: list[str] = []
    carried: dict[str, Any] = {}
    for images_seen, most in ((0, 64), (8, 64), (16, 4), (24, 4)):
        held_out = HeldOut(None, World(), size=16, most=most, say=said.append)  # type: ignore[arg-type]
        held_out.go_on(images_seen, carried)
    assert said == [
        "4 held-out images of each domain are evaluated from here on, in place of 64 up to 16 images: the figures before and after are "
        "not comparable"
    ]


def test_evaluations_that_begin_in_mid_run_are_not_compared_with_any() -> None:
    said: list[str] = []
    carried: dict[str, Any] = {}
    for images_seen, most, evaluates in ((0, 64, False), (8, 64, False), (16, 4, True), (24, 4, True)):
        held_out = HeldOut(None, World(), size=16, most=most, say=said.append)  # type: ignore[arg-type]
        held_out.go_on(images_seen, carried, evaluates=evaluates)
    assert said == []
    assert carried["evaluated_px"] == 16
