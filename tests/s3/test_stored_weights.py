"""Weights in a bucket: a run, a checkpoint, a file; through faults that storage recovers from."""

from pathlib import Path

import pytest
import torch
from fault_proxy import Fault, FaultProxy
from object_stores import Bucket

from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan import Generator, GeneratorConfig, load_generator, load_generators, save_generator
from nla_cyclegan.weights.checkpoint_names import name_of
from nla_cyclegan.weights.commit import share_file
from nla_cyclegan.weights.names import FILE_NAMES


@pytest.fixture
def run(bucket: Bucket, tmp_path: Path) -> dict[str, Generator]:
    """The generators of the only checkpoint of runs/mine."""
    folder = RunFolder(bucket.uri("runs"), "mine")
    generators, written = {}, {}
    for seed, (direction, file) in enumerate(FILE_NAMES.items()):
        torch.manual_seed(seed)
        generators[direction] = Generator(GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=(0,)))
        save_generator(generators[direction], tmp_path / file)
        written[file] = vars(folder.upload(tmp_path / file, f"{name_of(8)}/{file}"))
    folder.write_json(f"{name_of(8)}/{share_file(0, 1)}", {"files": written})
    folder.write_json("run.json", {})
    return generators


def same(one: Generator, other: Generator) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# Google's client holds Python's lock while it asks, and the proxy answers in this process: see test_google.py.
@pytest.mark.parametrize("store", ["rclone", pytest.param("moto", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("kind", ["slow_down", "reset", "hang"])
def test_weights_are_read_through_faults(bucket: Bucket, run: dict[str, Generator], kind: str) -> None:
    with FaultProxy(bucket.store.port) as proxy:
        # More in a row than the client itself tries again.
        proxy.fail(Fault(kind, seconds=0.2), 4, method="GET", path=FILE_NAMES["B2A"])
        proxy.fail(Fault(kind, seconds=0.2), 4, method="GET", path="list-type")
        found = load_generators(bucket.uri("runs/mine", proxy))
        assert proxy.faults.count(kind) == 8
    assert all(same(found[direction], run[direction]) for direction in FILE_NAMES)


def test_a_checkpoint_and_a_file_are_weights_too(bucket: Bucket, run: dict[str, Generator]) -> None:
    checkpoint = f"runs/mine/{name_of(8)}"
    assert same(load_generators(bucket.uri(checkpoint))["A2B"], run["A2B"])
    assert same(load_generator(bucket.uri(f"{checkpoint}/{FILE_NAMES['B2A']}")), run["B2A"])


def test_a_checkpoint_of_a_run_is_chosen_by_its_images(bucket: Bucket, run: dict[str, Generator]) -> None:
    # Before the options that a URI of a test's own server has.
    uri = bucket.uri("runs/mine@8")
    assert same(load_generators(uri)["A2B"], run["A2B"])
    with pytest.raises(UserError, match=r"no checkpoint at 9 images; there are 8$"):
        load_generators(bucket.uri("runs/mine@9"))
    with pytest.raises(UserError, match="none of its 1 checkpoint was evaluated"):
        load_generators(bucket.uri("runs/mine@best"))


def test_what_is_not_there_is_named(bucket: Bucket, run: dict[str, Generator]) -> None:
    with pytest.raises(UserError, match=r"runs/other.*: no such weight file"):
        load_generator(bucket.uri("runs/other"))
    with pytest.raises(UserError, match=r"there is no (bucket|container)"):
        load_generator(bucket.uri("runs/mine").replace(bucket.name, "no-such-bucket"))
