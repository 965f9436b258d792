import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from data_shards import progress
from data_shards.errors import UserError
from data_shards.images.read import load_image
from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.__main__ import main
from nla_cyclegan.commands import translate_files
from nla_cyclegan.commands.device import choose_device
from nla_cyclegan.commands.outputs import plan_batches
from nla_cyclegan.inference.images import attention_maps, translate_images, translation_mask
from nla_cyclegan.inference.tiles import translate_tiles
from nla_cyclegan.pictures.overlay import attention_overlay, mask_picture
from nla_cyclegan.pixels import to_float, to_uint8
from nla_cyclegan.weights.generators import load_generator, save_generator
from nla_cyclegan.weights.junyanz import state_of

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


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 20), (9, 30), (17, 11), (35, 34), (5, 7)])
def test_any_size_is_padded_by_reflection_and_cropped_back(weights, height, width):
    generator = load_generator(weights)
    images = torch.from_numpy(image(height, width)).permute(2, 0, 1)[None]
    wide = F.pad(to_float(images), (0, (4 - width % 4) % 4, 0, (4 - height % 4) % 4), mode="reflect")
    if min(wide.shape[-2:]) < 8:
        wide = F.pad(to_float(images), (0, 8 - width, 0, 8 - height), mode="reflect")
    with torch.no_grad():
        expected = to_uint8(generator(wide))[:, :, :height, :width]
    assert torch.equal(translate_images(generator, images), expected)
    maps = attention_maps(generator, images[0], (height - 1, width - 1))
    assert maps[1].shape == (-(-height // 4), -(-width // 4))
    assert maps[1].sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (3, 40), (40, 3), (4, 4), (7, 5)])
def test_below_the_networks_smallest_size_the_image_is_reflected_back_and_forth(weights, height, width):
    generator = load_generator(weights)
    images = torch.from_numpy(image(height, width)).permute(2, 0, 1)[None]
    wide = np.pad(image(height, width), ((0, 40), (0, 40), (0, 0)), mode="reflect")
    rows, cols = (max(8, -(-side // 4) * 4) for side in (height, width))
    with torch.no_grad():
        expected = to_uint8(generator(to_float(torch.from_numpy(wide[:rows, :cols]).permute(2, 0, 1)[None])))
    assert torch.equal(translate_images(generator, images), expected[:, :, :height, :width])


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
    assert translate(weights, tmp_path / "strict", "--strict", photos) == 1
    assert translate(weights, tmp_path / "none", photos / "cut.jpg") == 1
    capsys.readouterr()
    assert translate(weights, tmp_path / "out", photos) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"2014 {index}.png" for index in range(4)]
    output = capsys.readouterr()
    assert "4 of 6 images translated (B2A)" in output.out.splitlines()[-1]
    assert "2 left out" in output.out.splitlines()[-1]
    for reason in ["a broken.jpg: not a readable image", "cut.jpg: not a readable image"]:
        assert f"skipped: {photos / reason}" in output.err


def test_whatever_pillow_reads_comes_out_upright_in_its_own_size(weights, tmp_path):
    folder = tmp_path / "Bilder aus Köln 日本"
    folder.mkdir()
    rgb = Image.fromarray(image(12, 21))
    exif = rgb.getexif()
    exif[0x0112] = 6
    rgb.save(folder / "turned by EXIF.jpg", exif=exif)
    rgb.convert("L").save(folder / "grau.png")
    rgb.convert("LA").save(folder / "grey with alpha.png")
    rgb.convert("RGBA").save(folder / "alpha é.webp", lossless=True)
    rgb.convert("CMYK").save(folder / "ink.tif")
    Image.fromarray(image(12, 21)[..., 0].astype(np.uint16) * 257).save(folder / "16 bits.png")
    Image.fromarray(image(12, 21)[..., 0].astype(np.uint16) * 257).save(folder / "16 bits deep.tiff")
    rgb.quantize(16).save(folder / "palette.gif")
    rgb.convert("1").save(folder / "1 bit.bmp")
    Image.fromarray(image(1, 1)).save(folder / "one pixel.png")
    assert translate(weights, tmp_path / "out", folder) == 0
    written = {path.name: load_image(path).shape[1:] for path in (tmp_path / "out").iterdir()}
    assert written.pop("turned by EXIF.png") == (21, 12)
    assert written.pop("one pixel.png") == (1, 1)
    assert sorted(written) == [
        "1 bit.png", "16 bits deep.png", "16 bits.png", "alpha é.png", "grau.png", "grey with alpha.png", "ink.png",
        "palette.png",
    ]  # fmt: skip
    assert set(written.values()) == {(12, 21)}
    generator = load_generator(weights)
    for name in ("16 bits.png", "turned by EXIF.jpg", "alpha é.webp"):
        expected = translate_images(generator, load_image(folder / name)[None])[0]
        found = load_image((tmp_path / "out" / name).with_suffix(".png"))
        # Batched and single convolutions may round differently.
        assert (found.int() - expected.int()).abs().max() <= 1


def test_sub_folders_are_kept(weights, photos, tmp_path):
    for name in ["deep/er", "deep", ".hidden"]:
        (photos / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(9, 9)).save(photos / name / "2014 0.png")
    out = photos / "out"

    def written():
        return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())

    below = ["deep/2014 0.png", "deep/er/2014 0.png"]
    for _ in range(2):
        # The second time, the results lie inside the input folder: they are none of the inputs.
        assert translate(weights, out, "--recursive", photos) == 0
        assert written() == [*(f"2014 {index}.png" for index in range(4)), *below]
    for path in out.rglob("*.png"):
        path.unlink()
    for _ in range(2):
        assert translate(weights, out, photos / "**" / "*0.png") == 0
        assert written() == below


def test_two_attention_maps_or_an_input_are_never_written_over(weights, photos, tmp_path, capsys):
    # Named, so that it is taken for an image.
    drawn = photos / "2014 0.attention1.png"
    Image.fromarray(image(9, 9)).save(drawn)
    assert translate(weights, tmp_path / "out", "--attention", "0.5,0.5", photos, drawn) == 2
    assert "would both be written to" in capsys.readouterr().err
    assert translate(weights, photos, "--format", "png", "--attention", "0.5,0.5", photos / "2014 0.jpg") == 0
    assert (
        translate(weights, photos, "--attention", "0.5,0.5", photos / "2014 0.attention1.png", photos / "2014 0.jpg")
        == 2
    )
    assert "is one of the inputs" in capsys.readouterr().err


def test_attention_is_drawn_beside_each_result(weights, photos, tmp_path):
    assert translate(weights, tmp_path / "out", "--attention", "0.25,0.9", photos) == 0
    names = [f"2014 {index}{kind}.png" for index in range(4) for kind in ("", ".attention1")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    for index in range(4):
        shown = load_image(photos / f"2014 {index}.jpg")
        point = (int(0.9 * shown.shape[1]), int(0.25 * shown.shape[2]))
        weights_HW = attention_maps(load_generator(weights), shown, point)[1]
        expected = attention_overlay(shown, weights_HW, point, longer=max(shown.shape))
        drawn = load_image(tmp_path / "out" / f"2014 {index}.attention1.png")
        assert drawn.shape == shown.shape
        assert torch.equal(drawn, expected)


def test_attention_needs_non_local_blocks(photos, tmp_path, capsys):
    plain = TINY.model_copy(update={"nonlocal_blocks": ()})
    save_generator(Generator(plain), tmp_path / "plain.safetensors")
    assert translate(tmp_path / "plain.safetensors", tmp_path / "out", "--attention", "0,0", photos) == 2
    assert "has no non-local blocks" in capsys.readouterr().err


def test_attention_draws_the_mask_of_a_masked_output_too(photos, tmp_path, capsys):
    masked = Generator(TINY.model_copy(update={"nonlocal_blocks": (), "output": "masked"})).eval()
    save_generator(masked, tmp_path / "masked.safetensors")
    photo = photos / "2014 1.jpg"
    assert translate(tmp_path / "masked.safetensors", tmp_path / "out", "--attention", "0,0", photo) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2014 1.mask.png", "2014 1.png"]
    mask = translation_mask(masked, load_image(photo))
    assert torch.equal(load_image(tmp_path / "out" / "2014 1.mask.png"), mask_picture(mask))
    # Named, so that it is taken for an image.
    Image.fromarray(image(9, 9)).save(photos / "2014 1.mask.png")
    both = (photo, photos / "2014 1.mask.png")
    assert translate(tmp_path / "masked.safetensors", tmp_path / "two", "--attention", "0,0", *both) == 2
    assert "would both be written to" in capsys.readouterr().err


@pytest.fixture
def panorama(tmp_path):
    Image.fromarray(image(130, 301)).save(tmp_path / "panorama.png")
    return tmp_path / "panorama.png"


def test_larger_images_are_painted_in_tiles(weights, panorama, tmp_path, capsys):
    for out in ("one", "two"):
        grid = ["--grid", tmp_path / f"{out}.png", "--attention", "0.5,0.5"]
        assert translate(weights, tmp_path / out, "--tile", 130, *grid, panorama) == 0
    painted = load_image(tmp_path / "one" / "panorama.png")
    assert torch.equal(painted, translate_tiles(load_generator(weights), load_image(panorama), 128))
    for name in ("panorama.png", "panorama.attention1.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    map_size = load_image(tmp_path / "one" / "panorama.attention1.png").shape[1:]
    assert 0.9 * 128**2 < map_size[0] * map_size[1] <= 128**2

    assert translate(weights, tmp_path / "whole", "--tile", 204, panorama) == 0
    whole = translate_images(load_generator(weights), load_image(panorama)[None])[0]
    assert torch.equal(load_image(tmp_path / "whole" / "panorama.png"), whole)


def test_without_a_terminal_a_line_tells_how_far_it_is_tile_by_tile(
    weights, photos, panorama, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", -1.0)
    assert translate(weights, tmp_path / "out", "--tile", 128, photos / "2014 0.jpg", panorama) == 0
    lines = capsys.readouterr().err.splitlines()
    # 1,024 pixels, then 130 x 301 in two rows of tiles, of which a column each reaches a share of the width.
    assert lines[0] == "0 of 2 images, 2 %"
    assert lines[-1] == "2 of 2 images, 100 %"
    # The first is written while the second is painted.
    shares = [int(line.split()[-2]) for line in lines]
    assert len(set(shares)) > 4
    assert shares == sorted(shares)


def test_a_tile_of_margins_alone_is_refused_where_one_is_needed(weights, photos, panorama, tmp_path, capsys):
    assert translate(weights, tmp_path / "out", "--tile", 50, photos) == 0
    assert translate(weights, tmp_path / "out", "--tile", 50, photos, panorama) == 2
    assert "--tile 50: with these weights at least" in capsys.readouterr().err


def test_weights_of_pytorch_cyclegan_and_pix2pix_are_taken_as_they_are(photos, tmp_path, capsys):
    plain = Generator(TINY.model_copy(update={"nonlocal_blocks": ()})).eval()
    torch.save(state_of(plain), tmp_path / "latest_net_G_B.pth")
    assert translate(tmp_path / "latest_net_G_B.pth", tmp_path / "out", photos / "2014 1.jpg") == 0
    expected = translate_images(plain, load_image(photos / "2014 1.jpg")[None])[0]
    assert torch.equal(load_image(tmp_path / "out" / "2014 1.png"), expected)
    assert translate(tmp_path / "latest_net_G_B.pth", tmp_path / "out", "--direction", "A2B", photos) == 2
    assert "translates B2A, but A2B is asked for" in capsys.readouterr().err


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
    assert "is one of the inputs and would be overwritten; choose another name" in capsys.readouterr().err
    for same in (photos / "out" / "2014 1.png", photos / "else" / ".." / "out" / "2014 1.png"):
        assert translate(weights, photos / "out", "--grid", same, photos) == 2
        assert "would be written twice" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


def test_batches_hold_one_size_and_no_more_pixels_than_the_limit(photos):
    sources = sorted(photos.iterdir())
    batches, skipped = plan_batches(sources, batch=8, most_pixels=4_000_000)
    assert [(size, [path.stem[-1] for path in batch]) for size, batch in batches] == [
        ((32, 32), ["0", "2"]), ((18, 41), ["1"]), ((9, 30), ["3"]),
    ]  # fmt: skip
    assert skipped == {}
    assert len(plan_batches(sources, batch=8, most_pixels=2000)[0]) == 4
    assert len(plan_batches(sources, batch=8, most_pixels=10)[0]) == 4
    assert len(plan_batches(sources, batch=1, most_pixels=4_000_000)[0]) == 4
    assert [size for size, _ in plan_batches(sources, batch=8, most_pixels=10**6, shorter=16)[0]] == [
        (16, 16), (16, 36), (16, 53),
    ]  # fmt: skip


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
    (truth / "2014 1.png").write_bytes(b"no picture")
    assert translate(weights, tmp_path / "out", *arguments, photos) == 0
    out, err = capsys.readouterr()
    assert f"skipped: {truth}/2014 1.png: not a readable image" in err
    assert out.endswith("4 of 4 images translated (B2A): " + f"{tmp_path / 'out'}; 1 left out, see above\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--truth", "t"], "add --grid"),
        (["--grid", "g.png", "--truth", "nowhere"], "nowhere: no such folder"),
        (["--device", "quantum"], "--device quantum: not usable here"),
        (["--device", "mps"], "from the 'MPS' backend); try auto or cpu"),
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
    with pytest.raises(UserError, match="cuda:99"):
        choose_device("cuda:99")


def test_heat_maps_and_grids_are_no_inputs(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert translate(weights, out, "--attention", "0.5,0.5", "--grid", out / "grid.png", photos) == 0
    capsys.readouterr()
    assert translate(weights, tmp_path / "again", out) == 0
    output = capsys.readouterr()
    assert "4 of 4 images" in output.out
    assert "left out: drawn by this project (attention, grids): 5 files" in output.err


def test_a_result_that_its_format_cannot_hold_is_known_before(weights, tmp_path, capsys):
    Image.new("RGB", (16_400, 8)).save(tmp_path / "long.png")
    assert translate(weights, tmp_path / "out", "--format", "webp", tmp_path / "long.png") == 2
    assert (
        "--format webp: holds up to 16,383 px a side, but a result would have 16,400; use --format jpg"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_names_as_long_as_the_file_system_takes(weights, tmp_path):
    name = "ä" * 125
    Image.fromarray(image(9, 9)).save(tmp_path / f"{name}.png")
    assert translate(weights, tmp_path / "out", "--format", "webp", "--attention", "0.5,0.5", tmp_path) == 0
    assert sorted(len(path.name.encode()) for path in (tmp_path / "out").iterdir()) == [254, 255]


@pytest.mark.parametrize("after", ["plan_batches", "save_image"])
def test_images_that_change_meanwhile_are_left_out(weights, photos, tmp_path, capsys, monkeypatch, after):
    step = getattr(translate_files, after)

    def then_change(*arguments, **options):
        result = step(*arguments, **options)
        Image.fromarray(image(20, 60)).save(photos / "2014 0.jpg")
        (photos / "2014 1.jpg").unlink(missing_ok=True)
        return result

    monkeypatch.setattr(translate_files, after, then_change)
    assert translate(weights, tmp_path / "out", "--grid", tmp_path / "grid.png", photos) == 0
    out, err = capsys.readouterr()
    assert "2014 1.jpg: no such file" in err
    assert ("2014 0.jpg: was replaced by an image of another size" in err) == (after == "plan_batches")
    assert f"; {2 if after == 'plan_batches' else 1} left out, see above" in out
