"""The layout of pytorch-CycleGAN-and-pix2pix, judged by its ResNet generator written as plain torch layers."""

import os
import pickle
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch import nn

from data_shards.errors import UserError
from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.__main__ import main
from nla_cyclegan.pixels import to_uint8
from nla_cyclegan.weights.generators import load_generator, load_generators, read_generator
from nla_cyclegan.weights.junyanz import generator_from, read_state, state_of
from nla_cyclegan.weights.names import direction_of
from nla_cyclegan.weights.starting import load_networks


class Residual(nn.Module):
    def __init__(self, width, dropout, **norm):
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width, **norm), nn.ReLU()]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width, **norm)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class Plain(nn.Module):
    """Every convolution with a bias, as in that layout; the biases are random, as they are after training."""

    def __init__(self, base, blocks, dropout=False, seed=0, **norm):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, base, 7), nn.InstanceNorm2d(base, **norm), nn.ReLU()]
        for width in (base, 2 * base):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width, **norm), nn.ReLU()]
        layers += [Residual(4 * base, dropout, **norm) for _ in range(blocks)]
        for width in (4 * base, 2 * base):
            layers.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1))
            layers += [nn.InstanceNorm2d(width // 2, **norm), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(base, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        random = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.1, generator=random)

    def forward(self, x):
        return self.model(x)


def images(height=32, width=44):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("base", "blocks", "dropout"), [(4, 6, False), (6, 9, False), (3, 1, False), (4, 2, True)])
def test_their_weights_give_their_pixels(base, blocks, dropout):
    plain = Plain(base, blocks, dropout).double().eval()
    ours = generator_from(plain.state_dict())
    assert ours.config == GeneratorConfig(base_channels=base, num_blocks=blocks, nonlocal_blocks=())
    assert not ours.training
    plain, x = plain.float().double(), images().double()
    with torch.no_grad():
        painted, expected = ours.double()(x), plain(x)
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-10)
    assert torch.equal(to_uint8(painted), to_uint8(expected))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("track", [False, True])
def test_files_old_and_new_with_statistics_and_from_data_parallel(tmp_path, legacy, prefix, track):
    plain = Plain(4, 2, track_running_stats=track)
    state = plain.state_dict()
    assert any("running_mean" in name for name in state) == track
    renamed = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    renamed._metadata = state._metadata
    file = tmp_path / "latest_net_G_A.pth"
    torch.save(renamed, file, _use_new_zipfile_serialization=not legacy)
    with torch.no_grad():
        # In train mode, as that code tests: the statistics are the image's own.
        torch.testing.assert_close(load_generator(file, "A2B")(images()), plain(images()), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match=r"latest_net_G_A\.pth: translates A2B, but B2A is asked for"):
        load_generator(file, "B2A")


def test_a_file_that_was_converted_to_safetensors_is_read(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in Plain(4, 2).state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "latest_net_G_A.safetensors", {"format": "pt"})
    found = read_generator(tmp_path / "latest_net_G_A.safetensors")
    expected = generator_from(state)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    safetensors.torch.save_file(without(state, "module.model.4.bias"), tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"cut.safetensors: not a ResNet generator of .*: missing model.4.bias"):
        read_generator(tmp_path / "cut.safetensors")


def test_the_round_trip_is_exact():
    torch.manual_seed(0)
    ours = Generator(GeneratorConfig(base_channels=4, num_blocks=3, nonlocal_blocks=()))
    state = state_of(ours)
    assert list(state) == list(Plain(4, 3).state_dict())
    again = generator_from(state).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())

    theirs = Plain(4, 3).state_dict()
    back = state_of(generator_from(theirs))
    last = "model.20"
    for name, tensor in theirs.items():
        kept = name.endswith("weight") or name.startswith(last)
        assert torch.equal(back[name], tensor if kept else torch.zeros_like(tensor)), name


def test_our_weights_load_strictly_there_and_give_our_pixels(tmp_path):
    torch.manual_seed(0)
    ours = Generator(GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=())).double()
    plain = Plain(4, 2)
    plain.load_state_dict(state_of(ours))
    with torch.no_grad():
        torch.testing.assert_close(plain.double()(images().double()), ours.float().double()(images().double()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonlocal_blocks": (1,)}, r"no place for nonlocal_blocks \(1,\), only for \(\)"),
        ({"output": "masked"}, "no place for output 'masked', only for 'image'; export --format safetensors or onnx"),
        ({"norm": "group"}, "no place for norm 'group'"),
        ({"upsample": "resize"}, "no place for upsample 'resize'"),
    ],
)
def test_what_the_layout_has_no_place_for_is_refused(change, message):
    config = {"base_channels": 4, "num_blocks": 2, "nonlocal_blocks": ()} | change
    with pytest.raises(UserError, match=message):
        state_of(Generator(GeneratorConfig(**config)))


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without(Plain(4, 2).state_dict(), "model.7.bias", "model.11.conv_block.1.bias"), r"missing model\.7\.bias \[16\]$"),
        (Plain(4, 2).state_dict() | {"model.2.weight": torch.ones(4)}, r"unexpected model\.2\.weight \[4\]; .*--norm batch$"),
        (Plain(4, 2).state_dict() | {"model.7.filt": torch.ones(4)}, "contrastive-unpaired-translation without --no_antialias"),
        (without(Plain(4, 2).state_dict(), "model.1.weight"), r"missing model\.1\.weight \[64, 3, 7, 7\]$"),
        (Plain(4, 2).state_dict() | {"model.4.bias": torch.ones(9)}, r"model\.4\.bias is \[9\], expected \[8\]"),
        (Plain(4, 2).state_dict() | {"model.1.weight": torch.ones(4, 1, 7, 7)}, r"is \[4, 1, 7, 7\], expected \[4, 3, 7, 7\]"),
        (Plain(4, 2).state_dict() | {"model.1.weight": torch.ones(())}, r"model\.1\.weight is \[\], expected"),
        ({"model.model.0.weight": torch.ones(1)}, r"missing .*; unexpected model\.model\.0\.weight \[1\]; .*unet_256"),
        ({}, "missing model.1.weight"),
        (Plain(4, 2).state_dict() | {"model.4.bias": torch.ones(8).to_sparse()}, r"model\.4\.bias is not a dense tensor .*sparse_coo"),
        (Plain(4, 2).state_dict() | {"model.4.bias": torch.ones(8, device="meta")}, r"model\.4\.bias is not a dense tensor"),
        (Plain(4, 2).state_dict() | {"model.4.bias": torch.ones(8).int()}, r"model\.4\.bias is not a dense tensor .*int32"),
    ],
)  # fmt: skip
def test_the_first_tensor_that_does_not_fit_is_named(state, message):
    with pytest.raises(UserError, match=message):
        generator_from(state)


class Stranger:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({"model.1.weight": Stranger()}, r"holds the Python object \w+\.mkdir; only a state dict is read"),
        ({0: torch.zeros(1)}, "expected a state dict, which is names and tensors, but it holds a dictionary with 0"),
        ({"model.1.weight": torch.ones(2), "epoch": 3}, "but it holds a dictionary with model.1.weight, epoch"),
        ({"epoch": 3, "net": {}}, "expected a state dict, .* but it holds a dictionary with epoch, net"),
        ([torch.ones(1)], "but it holds a list"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_other_pickles_are_refused_and_never_run(tmp_path, monkeypatch, thing, message, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save(thing, "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=rf"w\.pth: .*{message}") as error:
        read_generator("w.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harm").exists()


def test_weights_inside_other_things_are_told_to_be_saved_alone(tmp_path):
    """As checkpoints of Lightning, mmgeneration, U-GAT-IT and MUNIT hold them."""
    state = Plain(4, 2).state_dict()
    torch.save({"epoch": 3, "optimizer": {}, "state_dict": state}, tmp_path / "nested.pth")
    with pytest.raises(
        UserError, match=r"an entry that is one alone: torch\.save\(torch\.load\(FILE\)\['state_dict'\], NEW\)"
    ):
        read_generator(tmp_path / "nested.pth")
    both = {prefix + name: tensor for prefix in ("gen_a.", "gen_b.") for name, tensor in state.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(
        UserError, match=r"both\.pth: holds several networks, gen_a\., gen_b\.: save the tensors of one"
    ):
        read_generator(tmp_path / "both.pth")


# torch warns that its own format is deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_module_is_named(tmp_path, recwarn):
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), str(tmp_path / "w.pth"))
    recwarn.clear()
    with pytest.raises(UserError, match=r"w\.pth: a TorchScript module; only a state dict is read"):
        read_generator(tmp_path / "w.pth")
    assert not recwarn.list


def test_damaged_files_are_named(tmp_path):
    torch.save(Plain(4, 2).state_dict(), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for content in (whole[: len(whole) // 2], b"PK\x03\x04", pickle.dumps({"a": 1}, protocol=2), b"\x80\x02"):
        with pytest.raises(UserError) as error:
            read_state(content)
        assert "\n" not in str(error.value)


def test_a_changed_byte_is_found_as_torch_does_not(tmp_path):
    state = Plain(4, 2).state_dict()
    torch.save(state, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[content.index(state["model.7.weight"].numpy().tobytes()) + 100] ^= 1
    with pytest.raises(UserError, match=r"^damaged: the checksum of w/data/\d+ is wrong"):
        read_state(bytes(content))


def test_a_file_whose_writer_left_checksums_out_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(Plain(4, 2).state_dict(), tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state((tmp_path / "w.pth").read_bytes())


@pytest.mark.parametrize("options", ["", "?region=eu-west-1"])
def test_the_name_of_a_uri_tells_the_direction(options):
    assert direction_of(f"s3://bucket/latest_net_G_A.pth{options}") == "A2B"
    assert direction_of(f"s3://bucket/run/generator_ba.safetensors{options}") == "B2A"


def test_import_takes_a_folder_or_files(tmp_path, capsys):
    theirs = tmp_path / "checkpoints" / "monet2photo"
    theirs.mkdir(parents=True)
    for seed, letter in enumerate("AB"):
        torch.save(Plain(4, 2, seed=seed).state_dict(), theirs / f"latest_net_G_{letter}.pth")
        torch.save({"model.0.weight": torch.ones(1)}, theirs / f"latest_net_D_{letter}.pth")
    assert main(["import-weights", str(theirs), "--out", str(tmp_path / "ours")]) == 0
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [
        "generator_ab.safetensors", "generator_ba.safetensors",
    ]  # fmt: skip
    assert "A2B, 2 blocks, 4 base channels" in capsys.readouterr().out
    for direction, seed in (("A2B", 0), ("B2A", 1)):
        with torch.no_grad():
            painted, expected = load_generator(tmp_path / "ours", direction)(images()), Plain(4, 2, seed=seed)(images())
        torch.testing.assert_close(painted, expected, rtol=0, atol=1e-4)

    (theirs / "latest_net_G_B.pth").rename(theirs / "latest_net_G.pth")
    one = ["import-weights", str(theirs / "latest_net_G.pth"), "--out", str(tmp_path / "style")]
    assert main(one) == 2
    assert "does not say what it translates; add --direction" in capsys.readouterr().err
    assert main([*one, "--direction", "B2A"]) == 0
    style, ours = load_generator(tmp_path / "style").state_dict(), load_generator(tmp_path / "ours").state_dict()
    assert all(torch.equal(style[name], tensor) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("latest_net_G.pth", r"latest_net_G_A\.pth \(A2B\) or latest_net_G_B\.pth \(B2A\)"),
        ("monet.safetensors", r"generator_ab\.safetensors \(A2B\) or generator_ba\.safetensors \(B2A\)"),
    ],
)
def test_a_file_whose_direction_is_unknown_is_to_be_called_as_its_kind(tmp_path, name, names):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"its name does not say what it translates; call it {names}$"):
        load_networks({}, str(tmp_path / name), discriminators=False)


def test_a_folder_of_theirs_is_a_checkpoint_folder(tmp_path):
    for seed, letter in enumerate("AB"):
        torch.save(Plain(4, 2, seed=seed).state_dict(), tmp_path / f"latest_net_G_{letter}.pth")
    for source in (tmp_path, tmp_path.as_uri()):
        generators = load_generators(source)
        for seed, direction in enumerate(["A2B", "B2A"]):
            with torch.no_grad():
                painted, expected = generators[direction](images()), Plain(4, 2, seed=seed)(images())
            torch.testing.assert_close(painted, expected, rtol=0, atol=1e-4)
    (tmp_path / "latest_net_G_B.pth").unlink()
    with pytest.raises(UserError, match=r"looked for generator_ba\.safetensors \(or latest_net_G_B\.pth\)"):
        load_generator(tmp_path)


def test_import_writes_nothing_where_something_is_wrong(tmp_path, capsys):
    good, bad = tmp_path / "latest_net_G_A.pth", tmp_path / "latest_net_G_B.pth"
    torch.save(Plain(4, 2).state_dict(), good)
    bad.write_bytes(good.read_bytes()[:500])
    out = tmp_path / "out"
    for arguments, message in [
        ([good, bad], "latest_net_G_B.pth: not a readable .pth file"),
        ([good, good], "both translate A2B"),
        ([good, bad, "--direction", "A2B"], "--direction is for a single file, but there are 2"),
        ([tmp_path / "none.pth", "--direction", "A2B"], "none.pth: no such weight file"),
    ]:
        assert main(["import-weights", *map(str, arguments), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not out.exists()
    (tmp_path / "empty").mkdir()
    assert main(["import-weights", str(tmp_path / "empty"), "--out", str(out)]) == 2
    assert "neither latest_net_G_A.pth nor latest_net_G_B.pth in it" in capsys.readouterr().err

    assert main(["import-weights", str(good), "--out", str(out)]) == 0
    assert main(["import-weights", str(good), "--out", str(out)]) == 2
    assert "exists and would be overwritten" in capsys.readouterr().err
