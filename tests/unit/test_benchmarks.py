"""The benchmarks run, at sizes that measure nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from evidence_cells import SIZES, for_rates
from evidence_run import Images, make, steps_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY_STEP = ["--size", "32", "--channels", "4", "--blocks", "1", "--repeats", "1", "--threads", "1"]
TINY_BLOCK = ["--batch", "1", "--side", "32", "--channels", "16", "--repeats", "1", "--threads", "1"]


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, f"tests/benchmarks/{script}.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("step_cpu", [*TINY_STEP, "--only", "textbook fp32", "step fp32"], "x textbook fp32"),
        ("nonlocal_block", TINY_BLOCK, "MB extra, "),
        ("weak_scaling", ["--step-ms", "50", "--network", "100"], "  1,024  "),
        ("translate", ["--images", "8", "--size", "32", "--channels", "2", "--rounds", "1"], "waits 15 ms an image"),
        ("dashboard", ["--trials", "20", "--pictures", "1"], "20 trials: read in "),
        ("start_gpu", ["--device", "cpu", "--tiny", "--batch", "1", "--rounds", "1"], "no cudnn.benchmark  "),
        ("degradations", ["--sizes", "32", "--images", "2", "--seeds", "0"], "| copy of the input | 1.000 |"),
    ],
)
def test_it_tells_the_machine_and_a_table(script: str, arguments: list[str], expected: str) -> None:
    printed = run(script, *arguments)
    assert "torch " in printed.splitlines()[0]
    assert expected in printed


def test_step_gpu_writes_its_results(tmp_path: Path) -> None:
    printed = run("step_gpu", "--device", "cpu", "--tiny", "--out", str(tmp_path))
    assert "batch 2, ours fused: " in printed
    assert "at the rates of GEMM and copy" in printed
    assert "non-local over residual: " in printed
    written = json.loads(next(tmp_path.glob("step-gpu-*-cpu.json")).read_text())
    assert {row["batch"] for row in written["rows"]} == {1, 2}
    assert next(tmp_path.glob("step-gpu-*-cpu.txt")).read_text().splitlines()[-1] in printed


def test_step_gpu_times_the_norm_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    printed = run("step_gpu", "--device", "cpu", "--tiny", "--only", "norms", "--out", str(tmp_path))
    assert sum(line.startswith("(2, 8, 16, 16)") for line in printed.splitlines()) == 2


def test_precision_writes_the_means_of_every_run(tmp_path: Path) -> None:
    small = ["--size", "32", "--channels", "4", "--blocks", "1", "--steps", "4", "--window", "2", "--device", "cpu"]
    printed = run("precision", tiny.pack_dataset(tmp_path), *small, "--out", str(tmp_path))
    assert "of the windows outside the range of the bf16 seeds" in printed
    runs = json.loads((tmp_path / "precision.json").read_text())
    assert [(each["precision"], each["seed"]) for each in runs] == [("bf16", 0), ("bf16", 1), ("bf16", 2), ("fp32", 0)]
    assert {len(means) for each in runs for means in each["means"].values()} == {2}


def test_evidence_goes_on_and_lists_what_is_open(tmp_path: Path) -> None:
    """Two calls of a few runs each: none is made twice, and all that is missing is named."""
    options = ("--size", "tiny", "--together", "2")
    printed = run("evidence", str(tmp_path), *options, "--runs", "2")
    runs = (tmp_path / "runs.jsonl").read_text()
    assert "stopped: 2 runs, as many as --runs allows" in printed
    assert "| NLA-CycleGAN is better than CycleGAN |" in printed
    again = run("evidence", str(tmp_path), *options, "--runs", "1")
    more = (tmp_path / "runs.jsonl").read_text()
    assert more.startswith(runs)
    keys = [tuple(json.loads(line)[name] for name in ("cell", "rate", "seed")) for line in more.splitlines()]
    assert len(set(keys)) == len(keys) == 3
    # All that were begun came to their end: the first ones of the plan, none left out.
    wanted = [(run.cell, run.rate, run.seed) for run in for_rates()]
    assert sorted(keys) == sorted(wanted[: len(keys)])
    assert f"rates: {18 - len(keys)} of 18 runs open" in again
    assert "pilot: open, it follows from the stage before" in again
    assert "**open**" in (tmp_path / "tables.md").read_text()


def test_runs_in_turns_are_those_of_one_alone(tmp_path: Path) -> None:
    images = Images(tiny.pack_dataset(tmp_path), SIZES["tiny"], torch.device("cpu"))
    wanted = for_rates()[:2]
    alone = [make(each, images) for each in wanted]
    turns, ends = [steps_of(each, images) for each in wanted], []
    while turns:
        for each in list(turns):
            try:
                next(each)
            except StopIteration as end:
                turns.remove(each)
                ends.append(end.value)
    for (one, painted), (other, repainted) in zip(alone, ends, strict=True):
        assert (one.key, one.measured, one.content) == (other.key, other.measured, other.content)
        assert torch.equal(painted, repainted)
    assert alone[0][0].scores != alone[1][0].scores
    assert "attention_generator_ab_1" in alone[1][0].measured[-1]


def test_variants_compare(tmp_path: Path) -> None:
    """What is put into the networks there fits them."""
    printed = run(
        "variants", str(tmp_path), "--images", "8", "--seeds", "0", "--only", "spectral", "nonlocal-d", "diffaug"
    )
    assert printed.count("| not decided |") == 3


def test_demo_settings_compares_configurations_over_seeds(tmp_path: Path) -> None:
    """Both configurations of the demo that are published, at a tiny size; what is done is not done again."""
    command = ["tests/benchmarks/configs/demo_before.yaml", "cluster/configs/demo.yaml", "--seeds", "1", "2"]
    command += ["--size", "32", "--train", "8", "--test", "3", "--data.load_size=32", "--data.crop_size=24"]
    command += ["--schedule.images=4", "--model.generator.base_channels=2", "--observe.previews=none"]
    printed = run("demo_settings", str(tmp_path), *command)
    rows = [line for line in printed.splitlines() if line.startswith("| demo")]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| demo_before", "2"], ["| demo", "2"], ["| demo less demo_before, ± 95 %", "2"],
    ]  # fmt: skip
    names = ("demo-1", "demo-2", "demo_before-1", "demo_before-2")
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in names}
    assert len({each["score"] for each in found.values()}) == len(names)
    (tmp_path / "demo-2.json").unlink()
    again = run("demo_settings", str(tmp_path), *command)
    assert "demo-2: score" in again
    assert "demo-1: score" not in again
    assert json.loads((tmp_path / "demo-2.json").read_text())["B2A"] == found["demo-2"]["B2A"]


def test_evaluate_memory_measures_each_number_of_images(tmp_path: Path) -> None:
    printed = run("evaluate_memory", str(tmp_path), "--sizes", "32", "--images", "3", "5", "--drawn", "2")
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| 32 ")]
    assert [row[1] for row in rows] == ["3", "5"]
    assert all(100 < float(row[2]) < 10_000 for row in rows)
    pictures = {path.read_bytes() for path in (tmp_path / "32-drawn-2-5" / "testB").iterdir()}
    assert len(pictures) == 5
