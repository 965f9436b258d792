"""What OUT says beside its images."""

import dataclasses
from pathlib import Path

import pytest
import torch

from cluster.translation.options import TranslationSettings
from cluster.translation.record import ABOUT, LEFT_OUT, begin, write_left_out
from data_shards.errors import UserError
from data_shards.storage import locate
from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.weights.generators import load_generator, save_generator

SETTINGS = TranslationSettings("B2A", ".png", None, 8, 1024, "bf16")


def generator(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return Generator(GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=()))


def test_the_same_goes_on_and_something_else_is_refused(tmp_path: Path) -> None:
    out = locate(tmp_path / "out")
    begin(out, generator(), SETTINGS)
    save_generator(generator(), tmp_path / "stored.safetensors")
    begin(out, load_generator(tmp_path / "stored.safetensors"), dataclasses.replace(SETTINGS, batch=2))
    with pytest.raises(UserError, match=r"out: was begun with other weights .*RUN@120000.*another OUT"):
        begin(out, generator(1), SETTINGS)
    with pytest.raises(UserError, match="size None, not 64, precision bf16, not fp32"):
        begin(out, generator(), dataclasses.replace(SETTINGS, size=64, precision="fp32"))
    (tmp_path / "out" / ABOUT).write_text("[]")
    with pytest.raises(UserError, match="something else"):
        begin(out, generator(), SETTINGS)


def test_what_was_left_out_is_named_until_it_comes_through(tmp_path: Path) -> None:
    out = locate(tmp_path / "out")
    write_left_out(out, {})
    assert not (tmp_path / "out").exists()
    write_left_out(out, {"b/2.jpg": "cut off", "a\n1.jpg": "not a readable image"})
    assert (tmp_path / "out" / LEFT_OUT).read_text() == "a\\n1.jpg\tnot a readable image\nb/2.jpg\tcut off\n"
    write_left_out(out, {})
    assert list((tmp_path / "out").iterdir()) == []
