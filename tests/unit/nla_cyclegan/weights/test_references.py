"""RUN@best, RUN@newest, RUN@120000: which checkpoint every verb takes, and what is no such mark."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.__main__ import main as cluster
from data_shards.errors import UserError
from data_shards.storage import Location
from data_shards.storage.folder import RunFolder
from nla_cyclegan import Generator, GeneratorConfig, load_generator, load_generators, save_generator
from nla_cyclegan.__main__ import main
from nla_cyclegan.weights import generators
from nla_cyclegan.weights.commit import Commit, StoredFile, write_commit
from nla_cyclegan.weights.references import Reference

CONFIG = GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=())
# Images seen -> score of the checkpoint there; None: it was not evaluated.
SCORES = {10: 7.0, 20: 5.0, 30: 5.0, 40: None, 50: 6.0}


def write_checkpoint(
    run: Path, images: int, score: float | None, config: dict[str, Any] | None = None, definition: str | None = None
) -> Path:
    folder = run / f"checkpoint_{images:012d}"
    folder.mkdir(parents=True)
    for direction in ("ab", "ba"):
        torch.manual_seed(images)
        save_generator(Generator(CONFIG), folder / f"generator_{direction}.safetensors")
    about = {"images_seen": images, "score": score, "config": config or {}}
    (folder / "run.json").write_text(json.dumps(about | ({"score_definition": definition} if definition else {})))
    stored = RunFolder(str(run.parent), run.name)
    files = {path.name: stored.upload(path, f"{folder.name}/{path.name}") for path in sorted(folder.iterdir())}
    whole = {name: StoredFile(file.sha256, file.size_bytes) for name, file in files.items()}
    write_commit(stored, folder.name, Commit(whole, 1))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    of = {"validation": {"images": 9}, "data": {"uri": "/shards"}}
    for images, score in SCORES.items():
        write_checkpoint(tmp_path / "runs" / "mine", images, score, of)
    return tmp_path / "runs" / "mine"


def images_of(generator: Generator) -> int:
    """The images seen of the checkpoint that it is from."""

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(Generator(CONFIG).parameters())

    return next(images for images in SCORES if torch.equal(weights(images), next(generator.parameters())))


@pytest.mark.parametrize(
    ("mark", "images"),
    [("", 50), ("@newest", 50), ("@best", 20), ("@40", 40), ("@000000000030", 30), ("/@best", 20), ("@best//", 20)],
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_mark_chooses_the_checkpoint(run: Path, scheme: str, mark: str, images: int) -> None:
    assert images_of(load_generator(f"{scheme}{run}{mark}")) == images


def test_the_best_says_what_chose_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_generators(f"{run}@best")
    assert capsys.readouterr().err == (
        "weights: checkpoint_000000000020, the best of 4 evaluated checkpoints by swd: score 5, chosen by the first 9 held-out images "
        "of testA and testB of /shards\n"
    )


def test_scores_of_another_definition_do_not_compare(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that went on with a newer version: the best is among those that were scored as the newest."""
    for images, score in ((60, 0.9), (70, 0.95)):
        write_checkpoint(run, images, score, definition="swd+lab 1")
    load_generators(f"{run}@best")
    said = capsys.readouterr().err
    assert said == "weights: checkpoint_000000000060, the best of 2 evaluated checkpoints by swd+lab 1: score 0.9\n"


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("@15", r"mine: no checkpoint at 15 images; there are 10, 20, 30, 40, 50$"),
        (
            "@latest",
            r"mine@latest: no such weight file, checkpoint folder or run folder.*@best, RUN@newest or RUN@120000",
        ),
    ],
)
def test_an_unknown_step_lists_those_that_exist(run: Path, mark: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_generators(f"{run}{mark}")


def test_without_an_evaluation_there_is_no_best(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "mine", 8, None)
    with pytest.raises(UserError, match=r"none of its 1 checkpoint was evaluated.*: 8$"):
        load_generators(tmp_path / "mine@best")
    with pytest.raises(UserError, match="no checkpoints in it, so there is no best"):
        load_generators(tmp_path / "mine" / "checkpoint_000000000008@best")


def test_an_incomplete_checkpoint_is_neither_best_nor_newest(run: Path) -> None:
    for images in (20, 50):
        (run / f"checkpoint_{images:012d}" / "commit-of-00001.json").unlink()
    assert images_of(load_generator(f"{run}@best")) == 30
    assert images_of(load_generator(f"{run}@newest")) == 40
    with pytest.raises(UserError, match="no checkpoint at 50 images; there are 10, 30, 40"):
        load_generators(f"{run}@50")


def test_a_damaged_choice_is_an_error_and_the_newest_falls_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for images in (20, 50):
        (run / f"checkpoint_{images:012d}" / "generator_ba.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"generator_ba\.safetensors is damaged"):
        load_generator(f"{run}@best")
    assert images_of(load_generator(f"{run}@newest")) == 40
    assert "checkpoint_000000000050 is skipped" in capsys.readouterr().err


def writing_meanwhile(monkeypatch: pytest.MonkeyPatch, run: Path, score: float) -> None:
    """When a checkpoint is read for the first time, a run that still trains has written the one at 50 images and deleted the others."""
    shutil.rmtree(run / "checkpoint_000000000050")
    read_all = generators._read_all

    def read(folder: Location, *rest: Any) -> Any:
        if not (run / "checkpoint_000000000050").exists():
            for other in run.glob("checkpoint_*"):
                shutil.rmtree(other)
            write_checkpoint(run, 50, score)
        return read_all(folder, *rest)

    monkeypatch.setattr(generators, "_read_all", read)


@pytest.mark.parametrize("mark", ["@newest", "@best"])
def test_a_checkpoint_that_a_run_replaces_meanwhile_is_chosen_anew(
    run: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    writing_meanwhile(monkeypatch, run, 1.0)
    assert images_of(load_generator(f"{run}{mark}")) == 50
    with pytest.raises(UserError, match="no checkpoint at 30 images; there are 50"):
        load_generator(f"{run}@30")


@pytest.mark.parametrize("name", ["mine@best", "mine@30", "you@home", "you@home@best"])
def test_a_folder_that_is_so_named_is_itself(run: Path, name: str) -> None:
    write_checkpoint(run.parent / name, 10, None)
    assert images_of(load_generator(run.parent / name)) == 10
    # And has checkpoints to choose from.
    assert images_of(load_generator(f"{run.parent / name}@newest")) == 10


def test_a_file_that_is_so_named_is_itself(run: Path) -> None:
    file = run.parent / "mine@best"
    file.write_bytes((run / "checkpoint_000000000040" / "generator_ba.safetensors").read_bytes())
    assert images_of(load_generator(file)) == 40


@pytest.mark.parametrize(
    "path",
    [
        "s3://KEY:SECRET@bucket/run",
        "s3://user@best",
        "runs@best/mine",
        "runs/mine@",
        "runs/mine@best.pth",
        "mine@-1",
        "@",
    ],
)
def test_any_other_at_sign_is_part_of_the_path(path: str) -> None:
    assert Reference.of(path) == Reference(path, None)


@pytest.mark.parametrize("mark", ["@best", "@newest", "@8"])
def test_a_run_that_is_not_there_is_named(tmp_path: Path, mark: str) -> None:
    with pytest.raises(UserError, match=r"typo: nothing is there; give a run's folder before the @$"):
        load_generators(tmp_path / f"typo{mark}")


def test_a_choice_behind_the_options_of_a_uri_is_refused_at_once() -> None:
    """And not tried as a region for a minute."""
    with pytest.raises(UserError, match=r"@best comes before the \?, at the end of the path"):
        Reference.of("s3://bucket/runs/mine?region=us-east-1@best")


def test_a_choice_comes_before_the_options_of_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nla_cyclegan.weights.references.is_file", lambda place: False)
    monkeypatch.setattr("nla_cyclegan.weights.references.list_folder", lambda place: {})
    monkeypatch.setattr("nla_cyclegan.weights.references.locate", lambda text: text)
    options = "?endpoint_override=127.0.0.1:9000&scheme=http"
    assert Reference.of(f"s3://K:S@b/runs/m@120000{options}") == Reference(f"s3://K:S@b/runs/m{options}", "120000")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def test_every_verb_takes_it(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, cpu = f"{run}@best", ["--device", "cpu"]
    assert main(["export", "--weights", best, "--format", "safetensors", "--out", str(tmp_path / "g.safetensors")]) == 0
    assert images_of(load_generator(tmp_path / "g.safetensors")) == 20
    assert main(["translate", "--weights", f"{run}@40", "--out", str(tmp_path / "painted"), *cpu, str(photos)]) == 0
    folders = ["--inputs", str(photos), "--real", str(photos), "--inception", "none"]
    assert main(["evaluate", "--weights", best, *folders, *cpu]) == 0
    line = json.dumps({"images": 50, "generator_total": 1.0, "gan_ab": 0.5, "gan_ba": 0.5})
    (run / "metrics.jsonl").write_text(line + "\n")
    drawn = ["--inputs", str(photos), "--out", str(tmp_path / "compared")]
    assert cluster(["compare", best, f"{run}@newest", *drawn, *cpu]) == 0
    assert "mine@best: 50 images" in capsys.readouterr().out
    assert cluster(["compare", best, f"{run}@15", "--out", str(tmp_path / "none")]) == 2
    assert "no checkpoint at 15 images; there are 10, 20, 30, 40, 50" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
