import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from inception_file import remember_features, write_inception
from measured import sliced_wasserstein
from PIL import Image

from nla_cyclegan import Generator, GeneratorConfig, save_generator
from nla_cyclegan.__main__ import main
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.metrics.distances import frechet_distance, kernel_distance
from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.weights.generators import load_generators

CONFIG = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(1,), nonlocal_gain=1.0)


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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for seed, direction in enumerate(["ab", "ba"]):
        torch.manual_seed(seed)
        save_generator(Generator(CONFIG), folder / f"generator_{direction}.safetensors")
    return folder


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    write_inception(file)
    return file


def evaluate(folders, *arguments, measured="--translations", source="painted"):
    """Repeated options: the last one counts."""
    fixed = [measured, folders / source, "--inputs", folders / "photos", "--real", folders / "real"]
    rest = ["--device", "cpu", "--inception", "none", "--json", folders / "new" / "scores.json"]
    status = main(["evaluate", *map(str, [*fixed, *rest, *arguments])])
    written = folders / "new" / "scores.json"
    return status, json.loads(written.read_text()) if written.exists() else None


def rows(table):
    """Name of the row -> its cells."""
    lines = [line for line in table.splitlines() if line.endswith(("lower", "higher"))]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    return {name: values[:-1] for name, *values in cells}


def test_table_and_json_say_the_same(folders, capsys):
    status, scores = evaluate(folders, "--truth", folders / "photos")
    assert status == 0
    table = capsys.readouterr().out
    assert scores.keys() == {"seed", "inception_sha256", "B2A"}
    one = scores["B2A"]
    assert (one["size"], one["images"], one["real_images"]) == (32, 5, 7)
    assert "5 images, 7 real of the other domain, 32 px" in table
    assert f"{one['swd_change_percent']:+.1f} %" in table
    a, b, shown = one["inputs"], one["translations"], rows(table)
    assert shown["score"] == ["1.000", f"{one['score']:.3f}"]
    assert one["score_definition"] == "swd+lab 1"
    assert f"score {one['score']:.3f}; a copy of the inputs has 1" in table.splitlines()
    assert shown["Lab"] == [f"{a['lab']:.2f}", f"{b['lab']:.2f}"]
    assert shown["of the scene"] == [f"{each['scene']:.3f}" for each in (a, b)]
    assert shown["SWD x 10^3"] == [f"{a['swd']:.1f}", f"{b['swd']:.1f}"]
    assert shown["at 16 px"] == [f"{each['swd_levels']['16']:.1f}" for each in (a, b)]
    assert shown["SSIM to truth"] == [f"{each['ssim_truth']:.3f}" for each in (a, b)]
    assert shown["SSIM to input"] == [f"{each['ssim_content']:.3f}" for each in (a, b)]
    # The photos are their own truth here: an infinite ratio, which JSON cannot say.
    assert shown["PSNR to truth, dB"] == ["inf", f"{b['psnr_truth']:.2f}"]
    assert a["psnr_truth"] is None
    header, *body = table.split("\n\n")[0].splitlines()
    assert header.split() == ["B2A", "inputs", "translations", "better"]
    ends = {line.rindex(b_cell) + len(b_cell) for line in body for b_cell in [line.split()[-2]]}
    assert ends == {header.index("translations") + len("translations")}


def test_without_truth_generators_and_inception_there_are_no_such_rows(folders, capsys):
    _, scores = evaluate(folders)
    shown = rows(capsys.readouterr().out)
    assert list(shown) == ["score", "SWD x 10^3", "at 32 px", "at 16 px", "Lab", "SSIM to input", "of the scene"]
    one = scores["B2A"]
    assert [one["inputs"][name] for name in ("ssim_truth", "kid", "kid_standard_error", "fid")] == [None] * 4
    assert (one["cycle_l1"], one["identity_l1"], scores["inception_sha256"]) == (None, None, None)


def test_a_run_is_measured_as_its_translations_are(folders, checkpoint, tmp_path):
    photos, real = batch(photo, range(6)), batch(painting, range(10, 17))
    status, scores = evaluate(folders, "--truth", folders / "truth", measured="--weights", source=checkpoint)
    assert status == 0
    painted = translate_images(load_generators(checkpoint)["B2A"], photos)
    (tmp_path / "own").mkdir()
    for index, picture in enumerate(painted):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "own" / f"scene {index}.png")
    _, by_files = evaluate(folders, "--truth", folders / "truth", source="own")
    for name in ("inputs", "translations", "swd_change_percent", "images", "size"):
        assert scores["B2A"][name] == by_files["B2A"][name]
    assert scores["B2A"]["translations"]["swd"] == sliced_wasserstein(painted, real).mean


def test_both_directions_swap_the_folders(folders, checkpoint, capsys):
    _, both = evaluate(
        folders, "--direction", "both", "--truth", folders / "truth", measured="--weights", source=checkpoint
    )
    table = capsys.readouterr().out
    _, there = evaluate(folders, "--truth", folders / "truth", measured="--weights", source=checkpoint)
    swapped = ["--direction", "A2B", "--inputs", folders / "real", "--real", folders / "photos"]
    _, back = evaluate(folders, *swapped, measured="--weights", source=checkpoint)
    assert both["B2A"] == there["B2A"]
    assert both["A2B"] == back["A2B"]
    assert [line.split()[0] for line in table.splitlines() if line.endswith("better")] == ["B2A", "A2B"]
    assert table.count("cycle L1") == 2
    scores = [both[direction]["score"] for direction in ("B2A", "A2B")]
    assert both["score"] == sum(scores) / 2
    headline = f"score {both['score']:.3f} (B2A {scores[0]:.3f}, A2B {scores[1]:.3f}); a copy of the inputs has 1"
    assert headline in table.splitlines()


def test_kid_and_fid_are_the_distances_of_the_features_in_the_file(folders, inception, monkeypatch, capsys):
    remember_features(monkeypatch)
    write(folders / "exact", painting, range(5))
    status, scores = evaluate(folders, "--inception", inception, source="exact")
    assert status == 0
    network = Inception(inception)
    photos, painted, real = (
        network(batch(draw, seeds))
        for draw, seeds in ((photo, range(5)), (painting, range(5)), (painting, range(10, 17)))
    )
    one = scores["B2A"]
    assert one["inputs"]["fid"] == pytest.approx(frechet_distance(photos, real), rel=1e-6)
    assert one["inputs"]["kid"] == pytest.approx(kernel_distance(photos, real).value, rel=1e-6)
    assert one["inputs"]["kid_standard_error"] == pytest.approx(kernel_distance(photos, real).standard_error, rel=1e-6)
    assert one["translations"]["fid"] == pytest.approx(frechet_distance(painted, real), rel=1e-6)
    assert one["translations"]["kid"] == pytest.approx(kernel_distance(painted, real).value, rel=1e-6)
    assert scores["inception_sha256"] == network.sha256
    table = capsys.readouterr().out
    kid = one["inputs"]
    assert rows(table)["KID x 10^3"][0] == f"{1e3 * kid['kid']:.2f} ± {1e3 * kid['kid_standard_error']:.2f}"
    assert rows(table)["FID"] == [f"{one[name]['fid']:.1f}" for name in ("inputs", "translations")]
    assert "warning: FID is biased upwards below 2,048 images, and there are 5: prefer KID" in table
    assert "warning: not the published Inception weights" in table


def test_with_images_enough_there_is_no_warning(folders, inception, monkeypatch, capsys):
    monkeypatch.setattr("nla_cyclegan.metrics.scores.ENOUGH_FOR_FID", 5)
    monkeypatch.setattr(
        "nla_cyclegan.metrics.inception.Inception.__call__", lambda self, images: images.float().flatten(1)
    )
    evaluate(folders, "--inception", inception)
    table = capsys.readouterr().out
    assert "FID" in rows(table)
    assert "FID is biased" not in table


def test_inputs_that_are_the_real_images_have_no_change_in_percent(folders):
    (folders / "photos" / "scene 5.png").unlink()
    found = evaluate(folders, "--real", folders / "photos")[1]["B2A"]
    assert (found["swd_change_percent"], found["score"]) == (None, None)


def test_all_images_are_brought_to_one_size(folders, checkpoint, capsys):
    for index in range(3):
        Image.fromarray(np.zeros((26, 90, 3), np.uint8)).save(folders / "real" / f"panorama {index}.png")
    assert evaluate(folders)[1]["B2A"]["size"] == 26
    assert evaluate(folders, "--size", 17)[1]["B2A"]["size"] == 17
    assert "measured at" not in capsys.readouterr().err
    # The generators take multiples of 4.
    assert evaluate(folders, measured="--weights", source=checkpoint)[1]["B2A"]["size"] == 24


def test_one_odd_thumbnail_does_not_set_the_size(folders, capsys):
    Image.fromarray(painting(0)[:20]).save(folders / "truth" / "scene 0.bmp")
    Image.fromarray(painting(0)[:18, :18]).save(folders / "real" / "thumbnail.png")
    assert evaluate(folders, "--truth", folders / "truth")[1]["B2A"]["size"] == 32
    assert "measured at 32 px: 2 of 23 images are smaller and are enlarged, such as " in capsys.readouterr().err


def test_of_a_run_it_is_the_size_of_the_runs_own_validation(folders, checkpoint, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "checkpoint_000000000008")
    (run / "run.json").write_text(json.dumps({"config": {"data": {"load_size": 23, "crop_size": 16}}}))
    assert evaluate(folders, measured="--weights", source=run)[1]["B2A"]["size"] == 20
    assert "measured at 20 px: as in the run's own validation (data.load_size 23)" in capsys.readouterr().err
    assert evaluate(folders, "--size", 24, measured="--weights", source=run)[1]["B2A"]["size"] == 24
    (run / "run.json").write_text(json.dumps({"config": {"data": {"load_size": 42}}}))
    evaluate(folders, measured="--weights", source=run)
    assert "(data.load_size 42); 13 of 13 images are smaller and are enlarged, such as " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth", "real"], r"real: no image named like scene 0 (5 of 5 have none)"),
        (["--inputs", "nowhere"], "nowhere: no such folder"),
        (["--size", "8"], "at least 16 px"),
        (["--size", "0"], "images of 0 px cannot be measured"),
        (["--direction", "both"], "--direction both needs the generators: give --weights instead"),
        (["--inception", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--json", "photos"], "photos: cannot be written"),
        (["--json", "."], ".: cannot be written"),
        (["--json", "photos/scene 3.png"], "--json photos/scene 3.png is one of the images"),
        (["--seed", "-1"], "--seed -1 is out of range"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folders, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folders)
    assert evaluate(folders, *arguments)[0] == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_is_only_measured_at_sizes_that_its_generators_take(folders, checkpoint, capsys):
    assert evaluate(folders, "--size", 30, measured="--weights", source=checkpoint)[0] == 2
    assert "--size 30: with --weights a multiple of 4" in capsys.readouterr().err


def test_too_few_images_for_kid(folders, inception, capsys):
    for index in range(10, 15):
        (folders / "real" / f"scene {index}.png").unlink()
    assert evaluate(folders, "--inception", inception)[0] == 2
    assert "KID needs at least 3 images on each side, got 5 inputs and 2 real ones" in capsys.readouterr().err
    assert evaluate(folders)[0] == 0


def test_a_translation_without_its_input_is_named(folders, capsys):
    (folders / "photos" / "scene 3.png").unlink()
    assert evaluate(folders)[0] == 2
    assert "no image named like scene 3 (1 of 5 have none)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(folders):
    verb = [
        "evaluate",
        "--translations",
        folders / "painted",
        "--inputs",
        folders / "photos",
        "--real",
        folders / "real",
    ]
    command = [sys.executable, "-m", "nla_cyclegan", *map(str, verb), "--inception", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
