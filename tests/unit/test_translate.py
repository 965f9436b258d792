import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.__main__ import main
from nla_cyclegan.errors import InputError
from nla_cyclegan.images import load_image
from nla_cyclegan.inference import attention_maps, choose_device, translate_images
from nla_cyclegan.step import to_float, to_uint8
from nla_cyclegan.translate import plan_batches
from nla_cyclegan.weights import load_generator, save_generator

TINY = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(1,), nonlocal_gain=1.0)


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoint_000000000008"
    folder.mkdir()
    for seed, direction in enumerate(["ab", "ba"]):
        torch.manual_seed(seed)
        save_generator(Generator(TINY), folder / f"generator_{direction}.safetensors")
    return folder.parent


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, (height, width) in enumerate([(32, 32), (18, 41), (32, 32), (9, 30)]):
        Image.fromarray(image(height, width, index)).save(folder / f"2014 {index}.jpg")
    return folder


def translate(weights, out, *arguments):
    return main(["translate", "--weights", str(weights), "--out", str(out), "--device", "cpu", *map(str, arguments)])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 20), (9, 30), (17, 11), (35, 34)])
def test_any_size_is_padded_by_reflection_and_cropped_back(weights, height, width):
    generator = load_generator(weights)
    images = torch.from_numpy(image(height, width)).permute(2, 0, 1)[None]
    wide = F.pad(to_float(images), (0, (4 - width % 4) % 4, 0, (4 - height % 4) % 4), mode="reflect")
    with torch.no_grad():
        expected = to_uint8(generator(wide))[:, :, :height, :width]
    assert torch.equal(translate_images(generator, images), expected)
    maps = attention_maps(generator, images[0], (height - 1, width - 1))
    assert maps[1].shape == (-(-height // 4), -(-width // 4))
    assert maps[1].sum().item() == pytest.approx(1)


def test_a_folder_is_translated_under_the_same_names(weights, photos, tmp_path, capsys):
    assert translate(weights, tmp_path / "out", photos, photos / "*1.jpg") == 0
    written = {path.name: load_image(path) for path in (tmp_path / "out").iterdir()}
    assert sorted(written) == [f"2014 {index}.png" for index in range(4)]
    generator = load_generator(weights, "B2A")
    for index in range(4):
        alone = translate_images(generator, load_image(photos / f"2014 {index}.jpg")[None])[0]
        # Batched and single convolutions may round differently.
        assert (written[f"2014 {index}.png"].int() - alone.int()).abs().max() <= 1
    assert "4 of 4 images translated (B2A)" in capsys.readouterr().out


def test_the_same_command_gives_the_same_bytes(weights, photos, tmp_path):
    for out in ("one", "two"):
        translate(weights, tmp_path / out, photos, "--grid", tmp_path / f"{out}.png")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_direction_format_limit_and_size(weights, photos, tmp_path):
    arguments = ["--direction", "A2B", "--format", "webp", "--limit", "2", "--size", "16"]
    assert translate(weights, tmp_path / "out", *arguments, photos) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2014 0.webp", "2014 1.webp"]
    assert load_image(tmp_path / "out" / "2014 1.webp").shape == (3, 16, 36)
    assert translate(weights, tmp_path / "ab", "--direction", "A2B", photos / "2014 0.jpg") == 0
    expected = translate_images(load_generator(weights, "A2B"), load_image(photos / "2014 0.jpg")[None])[0]
    assert torch.equal(load_image(tmp_path / "ab" / "2014 0.png"), expected)


def test_what_cannot_be_translated_is_named_and_the_rest_is_done(weights, photos, tmp_path, capsys):
    (photos / "a broken.jpg").write_bytes(b"nothing")
    whole = (photos / "2014 0.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(image(40, 40)).save(photos / "large.png")
    Image.fromarray(image(4, 40)).save(photos / "thin.png")
    assert translate(weights, tmp_path / "out", "--max-pixels", 1500, photos) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"2014 {index}.png" for index in range(4)]
    output = capsys.readouterr()
    assert "4 of 8 images" in output.out
    for reason in [
        "a broken.jpg: not a readable image", "cut.jpg: not a readable image",
        "large.png: 40 x 40 = 1,600 pixels, over the limit of 1,500", "thin.png: 40 x 4 pixels; the network needs at least 8",
    ]:  # fmt: skip
        assert reason in output.err


def test_two_inputs_for_one_output_are_refused_before_anything_is_written(weights, photos, tmp_path, capsys):
    Image.fromarray(image(16, 16)).save(photos / "2014 0.png")
    assert translate(weights, tmp_path / "out", photos) == 2
    assert "would both be written to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inputs_are_never_overwritten(weights, photos, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    assert translate(weights, photos, "--format", "jpg", photos) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert translate(weights, photos / "out", "--grid", photos / "2014 1.jpg", photos) == 2
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


def test_batches_hold_one_size_and_no_more_pixels_than_the_limit(photos):
    sources = sorted(photos.iterdir())
    batches, skipped = plan_batches(sources, batch=8, max_pixels=4_000_000)
    assert [[path.stem[-1] for path in batch] for batch in batches] == [["0", "2"], ["1"], ["3"]]
    assert skipped == {}
    assert len(plan_batches(sources, batch=8, max_pixels=2000)[0]) == 4
    assert len(plan_batches(sources, batch=1, max_pixels=4_000_000)[0]) == 4


def test_the_grid_shows_every_stage(weights, photos, tmp_path, capsys):
    truth = tmp_path / "truth"
    truth.mkdir()
    Image.fromarray(image(32, 32)).save(truth / "2014 2.png")
    grid = tmp_path / "grid.png"
    assert translate(weights, tmp_path / "out", "--grid", grid, photos) == 0
    without = Image.open(grid).width
    arguments = ["--grid", grid, "--truth", truth, "--attention", "0.1,0.9"]
    assert translate(weights, tmp_path / "out", *arguments, photos) == 0
    # Four columns (photo, painted, back again, attention), then the truth.
    assert Image.open(grid).width * 4 > without * 4 + 4 * 256
    assert f"picture grid: {grid}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth", "t"], "add --grid"),
        (["--grid", "g.png", "--truth", "nowhere"], "nowhere: no such folder"),
        (["--device", "quantum"], "--device quantum: not usable here"),
        (["--weights", "nowhere"], "no such weight file"),
        (["no*such.jpg"], "no file matches"),
    ],
)
def test_bad_input_is_one_line_and_status_2(weights, photos, tmp_path, capsys, arguments, message):
    assert translate(weights, tmp_path / "out", photos, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_grid_needs_both_generators(weights, photos, tmp_path, capsys):
    one = weights / "checkpoint_000000000008" / "generator_ba.safetensors"
    assert translate(one, tmp_path / "out", photos) == 0
    assert translate(one, tmp_path / "out", "--grid", tmp_path / "g.png", photos) == 2
    assert "both are needed" in capsys.readouterr().err


@pytest.mark.parametrize("point", ["1.2,0", "0.5", "a,b", "nan,0.5"])
def test_the_marked_point_is_two_fractions(weights, photos, tmp_path, capsys, point):
    with pytest.raises(SystemExit, match="2"):
        translate(weights, tmp_path / "out", "--grid", "g.png", "--attention", point, photos)
    assert "is not X,Y" in capsys.readouterr().err


def test_an_absent_cuda_device_is_refused():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="cuda:99"):
        choose_device("cuda:99")


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom nla_cyclegan.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "translate" in result.stdout
    assert result.stdout.endswith("False\n")
