import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from data_shards.errors import UserError
from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.__main__ import main
from nla_cyclegan.weights.generators import load_generator, read_generator, save_generator
from nla_cyclegan.weights.onnx import OPSET, check_onnx, save_onnx

PLAIN = GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=())
MASKED = {"output": "masked", "nonlocal_blocks": "all", "nonlocal_gain": "fixed"}


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run" / "checkpoint_8"
    folder.mkdir(parents=True)
    for seed, name in enumerate(["generator_ab", "generator_ba"]):
        torch.manual_seed(seed)
        save_generator(Generator(PLAIN), folder / f"{name}.safetensors")
    return folder


def export(checkpoint, kind, out, *more):
    return main(["export", "--weights", str(checkpoint.parent), "--format", kind, "--out", str(out), *more])


@pytest.mark.parametrize(("kind", "name"), [("safetensors", "mine.safetensors"), ("junyanz", "latest_net_G.pth")])
@pytest.mark.parametrize(("direction", "source"), [("A2B", "generator_ab"), ("B2A", "generator_ba")])
def test_a_file_of_one_direction_reads_back_exactly(checkpoint, tmp_path, capsys, kind, name, direction, source):
    out = tmp_path / "new" / name
    assert export(checkpoint, kind, out, "--direction", direction) == 0
    assert f"{out}: {direction}, " in capsys.readouterr().out
    expected = read_generator(checkpoint / f"{source}.safetensors")
    read = load_generator(out, direction)
    assert read.config == PLAIN
    assert all(torch.equal(read.state_dict()[key], tensor) for key, tensor in expected.state_dict().items())
    assert [path.name for path in out.parent.iterdir()] == [name]


@pytest.mark.parametrize(
    "change",
    [
        {},
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                {"nonlocal_blocks": (0, 1), "nonlocal_gain": 1.0},
                {"nonlocal_blocks": (1,), "nonlocal_gain": 1.0, "nonlocal_pooled": True, "nonlocal_scaled": True, "upsample": "resize"},
                {"norm": "group", "upsample": "resize"},
                MASKED,
            )
        ),
    ],
)  # fmt: skip
def test_onnx_paints_what_torch_paints_at_any_size(tmp_path, change):
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(**PLAIN.model_dump() | change))
    save_onnx(generator, tmp_path / "g.onnx")
    sizes = [(1, 3, 8, 8), (1, 3, 12, 8), (5, 3, 20, 36), (1, 3, 128, 64)]
    differences = check_onnx(generator, tmp_path / "g.onnx", sizes)
    assert list(differences) == sizes
    assert max(differences.values()) < 1e-4
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    with pytest.raises(UserError, match="onnxruntime and torch differ by"):
        check_onnx(generator, tmp_path / "g.onnx")


@pytest.mark.slow
def test_the_onnx_file_stands_alone_and_says_what_it_is(checkpoint, tmp_path, capsys):
    out = tmp_path / "onnx" / "monet.onnx"
    assert export(checkpoint, "onnx", out) == 0
    said = capsys.readouterr().out
    assert f"ONNX opset {OPSET}" in said
    assert "100 x 64" in said
    assert [path.name for path in out.parent.iterdir()] == ["monet.onnx"]

    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {entry.key: entry.value for entry in model.metadata_props}["nla_cyclegan.config"] == PLAIN.model_dump_json()
    # One for each norm: the encoder's three, two in each block, the decoder's two.
    assert [node.op_type for node in model.graph.node].count("InstanceNormalization") == 9
    first = out.read_bytes()
    assert b"site-packages" not in first
    assert b"forward" not in first
    assert export(checkpoint, "onnx", out) == 0
    assert out.read_bytes() == first
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 24, 16)).astype(np.float32)
    (painted,) = session.run(["translation"], {"image": image})
    with torch.no_grad():
        expected = read_generator(checkpoint / "generator_ba.safetensors")(torch.from_numpy(image))
    torch.testing.assert_close(torch.from_numpy(painted), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_mask_is_exported_with_the_translation(tmp_path, capsys):
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(**PLAIN.model_dump() | MASKED)).eval()
    file = tmp_path / "generator_ba.safetensors"
    save_generator(generator, file)
    read = load_generator(file)
    assert read.config.output == "masked"
    assert all(torch.equal(tensor, read.state_dict()[key]) for key, tensor in generator.state_dict().items())
    assert export(file, "onnx", tmp_path / "g.onnx") == 0
    assert "translation, the same and mask [batch, 1, height, width] in 0..1; onnxruntime" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    for size in [(1, 3, 16, 24), (5, 3, 20, 36), (1, 3, 128, 64)]:
        image = torch.rand(size) * 2 - 1
        with torch.no_grad():
            expected = generator.translate(image)
        for found, wanted in zip(session.run(["translation", "mask"], {"image": image.numpy()}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4)
    save_generator(Generator(GeneratorConfig(**PLAIN.model_dump() | {"output": "masked"})), file)
    assert export(file, "junyanz", tmp_path / "g.pth") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no place for output 'masked'" in line


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_onnx_package_is_one_line_and_leaves_nothing(checkpoint, tmp_path, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert export(checkpoint, "onnx", tmp_path / "out" / "g.onnx") == 2
    error = capsys.readouterr().err
    assert f"needs the package {package}: pip install 'nla-cyclegan[onnx]'" in error
    assert error.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_written_leaves_everything_as_it_was(checkpoint, tmp_path, capsys):
    file = checkpoint / "generator_ba.safetensors"
    before = file.read_bytes()
    assert main(["export", "--weights", str(file), "--format", "junyanz", "--out", str(file)]) == 2
    assert "is the weight file that is read" in capsys.readouterr().err
    assert export(checkpoint, "safetensors", tmp_path) == 2
    assert "is a folder; name a file in it" in capsys.readouterr().err
    (tmp_path / "plain").write_text("a file")
    assert export(checkpoint, "safetensors", tmp_path / "plain" / "g.safetensors") == 2
    assert "cannot be written" in capsys.readouterr().err
    torch.manual_seed(0)
    save_generator(Generator(GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=(0,))), file)
    assert export(checkpoint, "junyanz", tmp_path / "g.pth") == 2
    assert "no place for nonlocal_blocks (0,)" in capsys.readouterr().err
    assert not (tmp_path / "g.pth").exists()
    assert before != file.read_bytes()


@pytest.mark.parametrize(("file_format", "out"), [("junyanz", "generator_ba.safetensors"), ("hub", ".")])
def test_an_export_never_replaces_the_weights_it_reads(checkpoint, file_format, out, capsys):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert main(["export", "--weights", str(checkpoint), "--format", file_format, "--out", str(checkpoint / out)]) == 2
    assert "that is read; choose another name" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
