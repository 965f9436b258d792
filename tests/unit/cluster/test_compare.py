import json

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.__main__ import main
from data_shards.images.read import load_image
from nla_cyclegan import Generator, GeneratorConfig, save_generator
from nla_cyclegan.pictures.grids import comparison_row, picture_grid
from nla_cyclegan.weights.generators import load_generator

LOSSES = {"generator_total": 9.0, "gan_ab": 0.5, "gan_ba": 0.4, "discriminator_a": 0.2, "discriminator_b": 0.3}


def make_run(folder, images, blocks, weights=True):
    folder.mkdir(parents=True)
    lines = [json.dumps({"images": seen, **LOSSES}) for seen in range(10, images + 1, 10)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if weights:
        config = GeneratorConfig(base_channels=2, num_blocks=3, nonlocal_blocks=blocks, nonlocal_gain=1.0)
        checkpoint = folder / f"checkpoint_{images:012d}"
        checkpoint.mkdir()
        for seed, direction in enumerate(["ab", "ba"]):
            torch.manual_seed(seed)
            save_generator(Generator(config), checkpoint / f"generator_{direction}.safetensors")
    return folder


@pytest.fixture
def runs(tmp_path):
    return make_run(tmp_path / "plain", 50, ()), make_run(tmp_path / "local", 80, (1,))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"2014 {index}.png")
    return folder


@pytest.fixture
def compare(tmp_path):
    def command(*arguments):
        return main(["compare", *map(str, arguments), "--out", str(tmp_path / "out"), "--device", "cpu"])

    return command


def written(tmp_path):
    return sorted(path.name for path in tmp_path.glob("out/*"))


def test_both_pictures_are_drawn(runs, photos, compare, tmp_path, capsys):
    assert compare(*runs, "--inputs", photos, "--rows", 2) == 0
    assert written(tmp_path) == ["curves.png", "grid.png"]
    generators = {each.name: load_generator(each, "B2A") for each in runs}
    rows = [comparison_row(generators, load_image(photos / f"2014 {index}.png"), "B2A") for index in (0, 2)]
    assert list(rows[0]) == ["photo", "plain", "local", "attention, local"]
    expected = np.asarray(picture_grid(rows))
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    # Then comes the note.
    assert np.array_equal(grid[: len(expected)][:-20], expected[:-20])
    assert len(grid) > len(expected)
    shown = capsys.readouterr().out
    assert "plain: 50 images, 5 records\nlocal: 80 images, 8 records\n" in shown


def test_runs_without_nonlocal_blocks_have_no_attention(runs, photos, compare, tmp_path):
    other = make_run(tmp_path / "other", 20, ())
    assert compare(runs[0], other, "--inputs", photos, "--direction", "A2B") == 0
    assert Image.open(tmp_path / "out" / "grid.png").width == 20 + 3 * 266 - 10 + 20


def test_without_inputs_no_weights_are_needed(runs, compare, tmp_path):
    bare = make_run(tmp_path / "bare", 30, (), weights=False)
    assert compare(runs[0], bare) == 0
    assert written(tmp_path) == ["curves.png"]


def test_scores_on_other_held_out_images_are_not_compared(compare, tmp_path, capsys):
    runs = [make_run(tmp_path / name, 30, (), weights=False) for name in ("few", "changed")]
    for folder, used in zip(runs, ([4, 4, 4], [4, 4, 64]), strict=True):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        scores = [{"score": 0.9, "inputs_swd_A2B": 100.0 + images} for images in used]
        text = "".join(f"{json.dumps(line | score)}\n" for line, score in zip(lines, scores, strict=True))
        (folder / "metrics.jsonl").write_text(text)
    assert compare(*runs) == 0
    untouched = "held-out images untouched at 104 {} untouched at 164"
    assert capsys.readouterr().err.splitlines() == [
        f"warning: changed: its scores up to 20 images and later ones are not comparable ({untouched.format('then')}); they are not joined",
        f"warning: the scores of few and changed are not comparable ({untouched.format('and')}); each has axes of its own",
    ]


def test_large_inputs_are_reduced_and_small_ones_left(runs, compare, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name, size in {"large": (900, 600), "small": (40, 24)}.items():
        Image.new("RGB", size, "teal").save(tmp_path / "photos" / f"{name}.png")
    sizes = []

    def row(generators, image, direction):
        sizes.append(tuple(image.shape[1:]))
        return {"photo": image}

    monkeypatch.setattr("nla_cyclegan.pictures.grids.comparison_row", row)
    assert compare(*runs, "--inputs", tmp_path / "photos") == 0
    assert sizes == [(256, 384), (24, 40)]


def test_labels_are_the_ends_of_the_paths_that_tell_them_apart(compare, tmp_path, capsys):
    one, two = make_run(tmp_path / "adam" / "run", 20, ()), make_run(tmp_path / "nadam" / "run", 30, ())
    assert compare(one, f"{two}/") == 0
    assert "adam/run: 20 images" in capsys.readouterr().out
    assert compare(one, two.as_uri(), "--labels", "Adam", "Nadam") == 0
    assert "Nadam: 30 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain", "nowhere"], "nowhere: no such run folder"),
        (["plain", "photos"], "photos: not a run folder"),
        (["plain", "plain"], "plain: compared with itself; give two runs"),
        (["plain", "bare", "--inputs", "photos"], "bare: no weights here"),
        (["plain", "local", "--inputs", "nothing"], "nothing: no such file or folder"),
        (["plain", "local", "--labels", "x", "x"], "runs named 'x' and 'x': give --labels that differ from each other"),
        (
            ["plain", "photo"],
            "runs named 'plain' and 'photo': give --labels that differ from each other and from 'photo'",
        ),
        (["plain", "local", "--rows", "0"], "--rows 0: at least 1"),
        (["plain", "local", "--size", "0"], "--size 0: at least 1"),
        (["plain", "local", "--window", "-1"], "--window -1: at least 0"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    runs, photos, compare, tmp_path, monkeypatch, capsys, arguments, message
):
    for name in ("bare", "photo"):
        make_run(tmp_path / name, 10, (), weights=False)
    monkeypatch.chdir(tmp_path)
    assert compare(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert written(tmp_path) == []
