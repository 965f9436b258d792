import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from nla_cyclegan.__main__ import main
from nla_cyclegan.evaluate import as_table, evaluate_images
from nla_cyclegan.metrics import psnr, sliced_wasserstein, ssim


def painting(seed):
    """Coarse squares; a photo below is the same with noise on it."""
    coarse = np.random.default_rng(seed).integers(30, 220, (4, 4, 3), np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def photo(seed):
    grain = np.random.default_rng(100 + seed).integers(-30, 31, (32, 32, 3))
    return (painting(seed).astype(int) + grain).astype(np.uint8)


def batch(draw, seeds):
    return torch.stack([torch.from_numpy(draw(seed)).permute(2, 0, 1) for seed in seeds])


def write(folder, draw, seeds, suffix="png"):
    folder.mkdir()
    for seed in seeds:
        Image.fromarray(draw(seed)).save(folder / f"scene {seed}.{suffix}")


@pytest.fixture
def folders(tmp_path):
    write(tmp_path / "photos", photo, range(6))
    write(tmp_path / "painted", painting, range(5), "webp")
    write(tmp_path / "real", painting, range(10, 17))
    write(tmp_path / "truth", painting, range(6), "bmp")
    return tmp_path


def evaluate(folders, *arguments):
    folder_arguments = [
        "--translations",
        folders / "painted",
        "--inputs",
        folders / "photos",
        "--real",
        folders / "real",
    ]
    return main(["evaluate", *map(str, folder_arguments), *map(str, arguments)])


def test_each_figure_is_the_metric_of_the_right_two_sets():
    photos, paintings, real, truth = (
        batch(photo, range(4)),
        batch(painting, range(4)),
        batch(painting, range(9, 15)),
        batch(painting, range(4)),
    )
    truth = truth // 2
    evaluation = evaluate_images(photos, paintings, real, truth, seed=2)
    assert evaluation.inputs.swd == sliced_wasserstein(photos, real, seed=2)
    assert evaluation.translations.swd == sliced_wasserstein(paintings, real, seed=2)
    assert evaluation.swd_change == pytest.approx(
        100 * (evaluation.translations.swd.mean / evaluation.inputs.swd.mean - 1)
    )
    assert evaluation.inputs.psnr_truth == pytest.approx(psnr(photos, truth).mean().item())
    assert evaluation.translations.ssim_truth == pytest.approx(ssim(paintings, truth).mean().item())
    assert evaluation.translations.ssim_content == pytest.approx(ssim(paintings, photos).mean().item())
    assert evaluation.inputs.ssim_content == pytest.approx(1)


def test_table_and_json_say_the_same(folders, capsys):
    assert evaluate(folders, "--truth", folders / "photos", "--json", folders / "new" / "scores.json") == 0
    table = capsys.readouterr().out
    scores = json.loads((folders / "new" / "scores.json").read_text())
    assert (scores["size"], scores["images"], scores["real_images"]) == (32, 5, 7)
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line and line[0] != " "}
    for name in ("inputs", "translations"):
        row = scores[name]
        assert rows[name][0] == f"{row['swd']:.1f}"
        assert rows[name][1:3] == [f"{row['swd_levels'][side]:.1f}" for side in ("32", "16")]
        assert rows[name][4:] == [f"{row['ssim_truth']:.3f}", f"{row['ssim_content']:.3f}"]
    assert rows["translations"][3] == f"{scores['translations']['psnr_truth']:.2f}"
    assert f"{scores['swd_change_percent']:+.1f} %" in table
    # The photos are their own truth here: an infinite ratio, which JSON cannot say.
    assert rows["inputs"][3] == "inf"
    assert scores["inputs"]["psnr_truth"] is None


def test_without_a_truth_there_are_no_truth_columns(folders, capsys):
    assert evaluate(folders, "--json", folders / "scores.json") == 0
    assert "PSNR" not in capsys.readouterr().out
    assert json.loads((folders / "scores.json").read_text())["inputs"]["ssim_truth"] is None


def test_all_images_are_brought_to_one_size(folders, capsys):
    Image.fromarray(np.zeros((24, 90, 3), np.uint8)).save(folders / "real" / "panorama.png")
    assert evaluate(folders) == 0
    assert "at 24 px" in capsys.readouterr().out
    assert evaluate(folders, "--size", 16) == 0
    assert "at 16 px" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth", "real"], r"real: no image named like scene 0.webp (5 of 5 translations have none)"),
        (["--inputs", "nowhere"], "nowhere: no such folder"),
        (["--size", "8"], "at least 16 px"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folders, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folders)
    assert evaluate(folders, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_translation_without_its_input_is_named(folders, capsys):
    (folders / "photos" / "scene 3.png").unlink()
    assert evaluate(folders) == 2
    assert "no image named like scene 3.webp (1 of 5 translations have none)" in capsys.readouterr().err


def test_the_table_lines_up():
    photos = batch(photo, range(2))
    lines = as_table(evaluate_images(photos, photos, batch(painting, range(2)))).splitlines()[:3]
    assert len({len(line) for line in lines}) == 1
    assert math.isclose(float(lines[1].split()[1]), float(lines[2].split()[1]))
