"""Pictures of held-out images while a run trains."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from cluster.evaluation.previews import drawn
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.training import loop
from data_shards import open_dataset, read_split
from nla_cyclegan import load_generators
from nla_cyclegan.pictures.grids import translate_both_ways


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


def train(config: RunConfig) -> Path:
    """The run's folder."""
    loop.train(config, World())
    return Path(config.storage, config.name)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("previews/*"))


def test_a_preview_is_what_the_last_checkpoints_generators_paint(uri: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny.config(uri, tmp_path, observe={"previews": 16, "tensorboard": True}, schedule={"images": 24})
    folder = train(config)
    assert names(folder) == ["images_000000000016.png", "images_000000000024.png"]
    generators = load_generators(str(folder))
    translations = [
        translate_both_ways(generators[direction], generators[back], image, direction, identity=True)
        for direction, back, split in (("B2A", "A2B", "testB"), ("A2B", "B2A", "testA"))
        for _, image in read_split(open_dataset(uri), split, size=16, indices=range(3))
    ]
    expected = np.asarray(drawn(translations, "after 24 images"))
    assert np.array_equal(np.asarray(Image.open(folder / "previews" / "images_000000000024.png")), expected)
    row = translations[-1].row()
    assert list(row) == ["painting", "as a photo", "back again", "identity", "attention"]
    assert torch.equal(row["identity"], translations[-1].same)

    events = EventAccumulator(str(folder / "tensorboard" / "previews"))
    events.Reload()
    assert [event.step for event in events.Images("previews")] == [16, 24]


def test_without_held_out_images_training_images_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "SPLITS", {"trainA": 4, "trainB": 4})
    changes = {"observe": {"previews": 8}, "schedule": {"images": 8}, "step": {"precision": "fp64"}}
    folder = train(tiny.config(tiny.pack_dataset(tmp_path), tmp_path, **changes))
    assert names(folder) == ["images_000000000008.png"]


def test_none_are_drawn_where_none_are_wanted(uri: str, tmp_path: Path) -> None:
    assert names(train(tiny.config(uri, tmp_path, observe={"previews": None}, schedule={"images": 8}))) == []


def test_a_run_goes_on_where_pictures_cannot_be_written(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.config(uri, tmp_path, observe={"previews": 4}, schedule={"images": 12})
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "previews").write_text("in the way")
    assert (train(config) / "checkpoint_000000000012").is_dir()
    assert capsys.readouterr().err.count("warning: previews cannot be written") == 1
