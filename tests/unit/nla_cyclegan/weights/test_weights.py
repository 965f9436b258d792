import hashlib
import json
import shutil

import pytest
import safetensors.torch
import torch
from pyarrow import fs

from data_shards.errors import UserError
from data_shards.storage import Location
from nla_cyclegan import Generator, GeneratorConfig, from_pretrained
from nla_cyclegan.weights.commit import share_file
from nla_cyclegan.weights.generators import FORMAT, load_generator, load_generators, save_generator
from nla_cyclegan.weights.hub import save_hub

CONFIG = GeneratorConfig(base_channels=2, num_blocks=2, nonlocal_blocks=(1,), upsample="resize")


def generator(seed=0):
    torch.manual_seed(seed)
    return Generator(CONFIG)


def write_checkpoint(folder, seed):
    folder.mkdir(parents=True)
    ab, ba = generator(seed), generator(seed + 1)
    save_generator(ab, folder / "generator_ab.safetensors")
    save_generator(ba, folder / "generator_ba.safetensors")
    return ab, ba


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_round_trip_is_exact_and_ready_for_inference(tmp_path):
    written = generator()
    save_generator(written, tmp_path / "mine.safetensors")
    read = load_generator(tmp_path / "mine.safetensors")
    assert read.config == CONFIG
    assert same(read, written)
    assert not read.training
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "mine.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_checkpoint_folder_gives_the_generator_of_the_direction(tmp_path):
    ab, ba = write_checkpoint(tmp_path / "c", seed=3)
    assert same(load_generator(tmp_path / "c", "A2B"), ab)
    assert same(load_generator(tmp_path / "c", "B2A"), ba)
    assert same(load_generator(tmp_path / "c" / "generator_ba.safetensors", "B2A"), ba)
    with pytest.raises(UserError, match="translates B2A, but A2B is asked for"):
        load_generator(tmp_path / "c" / "generator_ba.safetensors", "A2B")
    with pytest.raises(UserError, match="holds one generator, but both are needed"):
        load_generators(tmp_path / "c" / "generator_ba.safetensors")


def test_a_run_folder_gives_its_newest_checkpoint_also_by_uri(tmp_path):
    write_checkpoint(tmp_path / "checkpoint_900", seed=5)
    ab, ba = write_checkpoint(tmp_path / "checkpoint_1000", seed=7)
    newest = load_generators(tmp_path)
    assert same(newest["A2B"], ab)
    assert same(newest["B2A"], ba)
    assert same(load_generator(tmp_path.as_uri()), ba)


def test_a_checkpoint_that_is_still_being_written_is_passed_over(tmp_path, capsys):
    _, ba = write_checkpoint(tmp_path / "checkpoint_000000000100", seed=1)
    write_checkpoint(tmp_path / "checkpoint_000000000200", seed=2)
    part = tmp_path / "checkpoint_000000000200" / "generator_ba.safetensors"
    part.write_bytes(part.read_bytes()[:-10])
    (tmp_path / "checkpoint_000000000300").mkdir()
    assert same(load_generator(tmp_path), ba)
    assert "checkpoint_000000000200" in capsys.readouterr().err


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    (tmp_path / "checkpoint_1").mkdir()
    with pytest.raises(UserError, match=r"looked for generator_ba\.safetensors.*checkpoint_\* \(1 found\)"):
        load_generator(tmp_path)
    (tmp_path / "half").mkdir()
    save_generator(generator(), tmp_path / "half" / "generator_ba.safetensors")
    with pytest.raises(
        UserError, match=r"half: no weights here of both directions; looked for generator_ab\.safetensors"
    ):
        load_generators(tmp_path / "half")


@pytest.mark.parametrize("path", ["/nowhere/at/all", "file:///nowhere/at/all"])
def test_a_missing_path_is_named(path):
    with pytest.raises(UserError, match="/nowhere/at/all: no such weight file"):
        load_generator(path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    class Closed:
        type_name = "local"

        def get_file_info(self, asked):
            if isinstance(asked, fs.FileSelector):
                raise PermissionError("access denied")
            return fs.LocalFileSystem().get_file_info(asked)

    monkeypatch.setattr("nla_cyclegan.weights.generators.locate", lambda path: Location(Closed(), path, path))
    with pytest.raises(UserError, match=rf"cannot list {tmp_path}: access denied"):
        load_generator(str(tmp_path))


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UserError, match=r"cannot open nonsense://x"):
        load_generator("nonsense://x")


@pytest.mark.parametrize("content", [b"", b"plain text, long enough for a header", b"\xff" * 64])
def test_another_file_is_not_taken_for_weights(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(UserError, match="not a generator's weight file"):
        load_generator(tmp_path / "w")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [(LFS, "a pointer of Git LFS: fetch the file itself"), (b"\n<!DOCTYPE html>", "a web page or XML: download")],
)
def test_what_a_clone_or_a_download_left_in_the_place_of_weights_is_named(tmp_path, content, said):
    write_checkpoint(tmp_path / "hub", seed=0)
    (tmp_path / "latest_net_G_A.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"latest_net_G_A\.pth: {said}"):
        load_generator(tmp_path / "latest_net_G_A.pth", "A2B")
    save_hub(load_generators(tmp_path / "hub"), tmp_path / "hub", {})
    for file in ("model.safetensors", "config.json"):
        (tmp_path / "hub" / file).write_bytes(content)
        with pytest.raises(UserError, match=rf"{file}: .*{said}"):
            from_pretrained(tmp_path / "hub")


@pytest.mark.parametrize(
    "wrapped", [torch.compile, torch.nn.DataParallel, lambda g: torch.compile(torch.nn.Sequential(g))]
)
def test_a_generator_is_saved_whatever_is_wrapped_around_it(tmp_path, wrapped):
    # torch.compile and DataParallel put a prefix before the names of all tensors.
    save_generator(wrapped(generator()), tmp_path / "w")
    assert same(load_generator(tmp_path / "w"), generator())


def test_what_is_no_generator_is_not_saved(tmp_path):
    for module, said in (
        (torch.nn.ReLU(), "a ReLU with 0"),
        (torch.nn.Sequential(generator(), generator(1)), "with 2"),
    ):
        with pytest.raises(TypeError, match=f"generator is .*{said} generators in it; expected one"):
            save_generator(module, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_safetensors_of_something_else_are_refused(tmp_path):
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "w", {"format": "pt"})
    with pytest.raises(UserError, match="not a generator's weight file"):
        load_generator(tmp_path / "w")


def rewrite(path, **changes):
    metadata = {"format": FORMAT, "version": "1", "config": CONFIG.model_dump_json()} | changes
    safetensors.torch.save_file(generator().state_dict(), path, metadata)


def test_a_newer_format_is_told_from_a_damaged_one(tmp_path):
    for version in ("2", "1.1", ""):
        rewrite(tmp_path / "w", version=version)
        with pytest.raises(UserError, match=f"format version {version}, but this program reads up to 1"):
            load_generator(tmp_path / "w")


@pytest.mark.parametrize("change", [{"base_channels": 4}, {"unheard_of": 1}, {"nonlocal_blocks": [7]}])
def test_weights_that_do_not_fit_their_config_are_damaged(tmp_path, change):
    rewrite(tmp_path / "w", config=json.dumps(CONFIG.model_dump() | change))
    with pytest.raises(UserError, match="damaged") as error:
        load_generator(tmp_path / "w")
    assert "\n" not in str(error.value)


def complete(folder):
    files = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    described = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in files}
    (folder / share_file(0, 1)).write_text(json.dumps({"files": described}))


def test_a_complete_checkpoint_comes_before_a_newer_one_that_is_not(tmp_path):
    _, ba = write_checkpoint(tmp_path / "checkpoint_8", seed=1)
    complete(tmp_path / "checkpoint_8")
    write_checkpoint(tmp_path / "checkpoint_16", seed=3)
    assert same(load_generator(tmp_path), ba)


def test_what_is_not_what_was_written_is_not_taken(tmp_path, capsys):
    """A file that is a generator by itself, but not the checkpoint's: no half of two checkpoints is taken for one."""
    _, ba = write_checkpoint(tmp_path / "checkpoint_8", seed=1)
    write_checkpoint(tmp_path / "checkpoint_16", seed=3)
    for name in ("checkpoint_8", "checkpoint_16"):
        complete(tmp_path / name)
    shutil.copy(tmp_path / "checkpoint_8" / "generator_ba.safetensors", tmp_path / "checkpoint_16")
    with pytest.raises(UserError, match=r"generator_ba\.safetensors is damaged: its SHA-256"):
        load_generator(tmp_path / "checkpoint_16")
    assert same(load_generator(tmp_path), ba)
    assert "checkpoint_16 is skipped" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_diverged_run_are_refused(tmp_path, value):
    state = generator().state_dict()
    name = list(state)[-1]
    state[name] = torch.full_like(state[name], value)
    metadata = {"format": FORMAT, "version": "1", "config": CONFIG.model_dump_json()}
    safetensors.torch.save_file(state, tmp_path / "w", metadata)
    with pytest.raises(UserError, match=rf"w: {name} has NaN or infinite values"):
        load_generator(tmp_path / "w")


def test_a_number_format_that_torch_lacks_is_named(tmp_path):
    metadata = {"format": FORMAT, "version": "1", "config": CONFIG.model_dump_json()}
    header = json.dumps({"__metadata__": metadata, "x": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(UserError, match=r"w: in a number format .*F4"):
        load_generator(tmp_path / "w")


def test_weights_are_fp32_on_the_cpu_whatever_the_defaults_are(tmp_path):
    written = generator()
    save_generator(written, tmp_path / "mine.safetensors")
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    try:
        read = load_generator(tmp_path / "mine.safetensors")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert same(read, written)
    assert {(each.dtype, each.device.type) for each in read.state_dict().values()} == {(torch.float32, "cpu")}


@pytest.mark.parametrize("directions", ["B2A", ["b2a"], [], [None]])
def test_directions_are_a_list_of_those_that_there_are(tmp_path, directions):
    with pytest.raises(UserError, match="expected A2B or B2A"):
        load_generators(tmp_path, directions)


def test_what_is_no_path_of_this_machine(tmp_path):
    with pytest.raises(TypeError, match="not NoneType"):
        load_generator(None)
    with pytest.raises(UserError, match="expected a path of this machine"):
        save_generator(generator(), "s3://bucket/mine.safetensors")
