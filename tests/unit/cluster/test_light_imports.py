"""What starts quickly imports nothing heavy: each check runs in a process of its own."""

import subprocess
import sys
from pathlib import Path

import tiny
import yaml
from ray import cloudpickle

from cluster.evaluation.config import SMALLEST
from cluster.group.driver import build_trainer
from cluster.settings.config import RunConfig
from cluster.settings.workers.resources import Resources
from nla_cyclegan.metrics.sliced_wasserstein import COARSEST

HEAVY = ("ray", "torch", "torchvision", "tensorboard", "optuna", "plotly", "matplotlib", "pandas")
WITH_RAY = tuple(name for name in HEAVY if name not in ("ray", "pandas"))
REPORT = "import sys\nloaded = [name for name in {heavy!r} if name in sys.modules]\nassert not loaded, loaded\n"


def check(code: str, heavy: tuple[str, ...] = HEAVY) -> str:
    """Run Python code, then look which of the heavy packages it has imported. Returns: its errors."""
    done = subprocess.run(
        [sys.executable, "-c", code + "\n" + REPORT.format(heavy=heavy)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def command(*arguments: str) -> str:
    return f"from cluster.__main__ import main\ntry:\n    main({list(arguments)!r})\nexcept SystemExit as end:\n    assert not end.code"


def test_the_status_of_a_run_imports_nothing_heavy(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"images": 8, "swd": 1.0, "swd_A2B": 1.0, "swd_B2A": 1.0, "time": 1.0}\n')
    check(command("status", str(folder)))


def test_weights_that_are_not_there_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    verbs = {
        "nla_cyclegan": [
            ["translate", "--out", f"{tmp_path}/out", str(tmp_path)],
            ["evaluate", "--inputs", str(tmp_path), "--real", str(tmp_path)],
            ["export", "--format", "onnx", "--out", f"{tmp_path}/x.onnx"],
            ["show"],
        ],
        "cluster": [["translate", str(tmp_path), f"{tmp_path}/out"]],
    }
    code = "from importlib import import_module\n" + "\n".join(
        f"assert import_module('{package}.__main__').main({[*verb, '--weights', 'mistyped@best']!r}) == 2"
        for package, calls in verbs.items()
        for verb in calls
    )
    assert check(code).count("mistyped: no such weight file, checkpoint folder or run folder") == 5


def test_a_driver_imports_no_torch(tmp_path: Path) -> None:
    """All that `train` does before and after its workers, and Ray Train's trainer."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tiny.settings(tiny.pack_dataset(tmp_path), tmp_path / "runs")))
    check(
        f"""
import cluster.train
from cluster.group.driver import build_trainer
from cluster.settings.options import parse_options
from cluster.settings.preflight import claim, prepare
from cluster.settings.workers.resources import choose
from cluster.settings.workers.this_machine import this_machine

prepared = prepare(parse_options(["--config", {str(file)!r}]).config)
claim(prepared)
build_trainer(prepared.config, choose(prepared.config.scaling, [this_machine()], global_batch=4))
""",
        WITH_RAY,
    )


def test_what_the_controller_unpickles_imports_no_torch(tmp_path: Path) -> None:
    config = RunConfig.model_validate(tiny.settings("somewhere", tmp_path))
    trainer = build_trainer(config, Resources(1, use_gpu=False, cpus_per_worker=1, reasons={}))
    callbacks = trainer._create_default_callbacks()
    file = tmp_path / "pickle"
    file.write_bytes(cloudpickle.dumps([callbacks, trainer.train_run_context]))
    check(f"import pickle; pickle.load(open({str(file)!r}, 'rb'))", WITH_RAY)


def test_a_rank_imports_no_compiler(tmp_path: Path) -> None:
    """torchvision, some of torch's own functions and torch.optim import torch's compiler, two seconds of a start."""
    settings = tiny.settings(tiny.pack_dataset(tmp_path), tmp_path / "runs", validation={"every": 24, "images": 4})
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    check(
        command("train", "--local", "--config", str(file)), ("torchvision", "torch._dynamo", "torch._inductor", "sympy")
    )


def test_the_smallest_crop_is_that_of_the_distance() -> None:
    assert SMALLEST == COARSEST
