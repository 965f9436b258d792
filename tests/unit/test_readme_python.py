"""The Python of the README files runs as it is given, at a tiny size; every configuration can be made without arguments by a type checker."""

import ast
import re
import textwrap
from pathlib import Path

import pytest
import torch
from image_folders import make_dataset
from PIL import Image

from nla_cyclegan import Generator, GeneratorConfig, load_generator, paint
from nla_cyclegan.weights.generators import save_generator

ROOT = Path(__file__).parents[2]
TINY = GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=(1,))
# What stands in the place of the pages' own.
HERE = {
    "s3://bucket/monet2photo": "shards",
    ', device="cuda"': "",
    '.to("cuda")': "",
    "100_000": "8",
    "ScheduleConfig()": "ScheduleConfig(images=8)",
    "StreamConfig()": "StreamConfig(load_size=36, crop_size=32, loader_workers=0)",
    "ModelConfig()": "ModelConfig.model_validate({'generator': {'base_channels': 4, 'num_blocks': 2, 'nonlocal_blocks': [1]}})",
}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a dataset, a run and a picture under the pages' names."""
    make_dataset(tmp_path, {"trainA": 8, "trainB": 8, "testA": 3, "testB": 3})
    torch.manual_seed(0)
    save_generator(Generator(TINY), tmp_path / "runs" / "monet" / "generator_ba.safetensors")
    records = (
        '{"images": 4, "generator_total": 9.0}\n{"images": 4, "swd_A2B": 7.0}\n{"images": 8, "generator_total": 8.0}\n'
    )
    (tmp_path / "runs" / "monet" / "metrics.jsonl").write_text(records)
    Image.effect_noise((37, 21), 80).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(block: str, names: dict[str, object]) -> None:
    for there, at in HERE.items():
        block = block.replace(there, at)
    exec(compile(block, "README.md", "exec"), names)


def test_the_blocks_of_the_model_run_one_after_the_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks("nla_cyclegan/README.md"):
        run(block.replace(", 256\n", ", 32\n"), names)
    assert load_generator("monet.safetensors").config.base_channels == 4
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("0 {'generator_total': ")
    assert float(printed[-1].split()[0]) > 0
    metrics = names["metrics"]
    assert metrics.loc[4].to_dict() == {"generator_total": 9.0, "swd_A2B": 7.0}  # type: ignore[attr-defined]


def test_the_notebooks_lines_on_the_first_page_run(here: Path) -> None:
    match = re.search(r"^    from PIL.*\n(?:    .+\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert match
    run(textwrap.dedent(match[0]), {})
    expected = paint(load_generator("runs/monet"), Image.open("photo.jpg"))
    assert Image.open("painted.png").tobytes() == expected.tobytes()


def test_type_checkers_see_the_defaults_of_all_fields() -> None:
    """pyright, and mypy without pydantic's plug-in, take a field for required whose default is not given by its name."""
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for package in ("cluster", "data_shards", "nla_cyclegan", "tuning")
        for file in sorted((ROOT / package).rglob("*.py"))
        if "= Field(" in (text := file.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.AnnAssign) and isinstance(call := node.value, ast.Call)
        if isinstance(call.func, ast.Name) and call.func.id == "Field" and call.args
    ]
    assert wrong == []
