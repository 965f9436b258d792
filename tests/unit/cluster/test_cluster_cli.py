import io
import json
import pdb
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
import tiny
import yaml

from cluster import __main__ as command
from cluster.group import driver
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.settings.costs import Costs, measure
from cluster.settings.preflight import cluster_address
from cluster.settings.workers import this_machine
from cluster.training import loop
from cluster.training.loop import train
from data_shards.storage.folder import RunFolder
from nla_cyclegan import Generator, GeneratorConfig, PatchDiscriminator, ScheduleConfig

ROOT = Path(__file__).parents[3]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def file(uri: str, tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny.settings(uri, tmp_path / "runs")))
    return str(path)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process, on a machine of three cores, without Ray: its exit status, stdout and stderr."""
    monkeypatch.setattr(this_machine, "usable_cores", lambda: 3)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(driver, "ray_session", lambda address: pytest.fail("Ray was started"))

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cluster", *arguments])
        status = command.main()
        return status, *capsys.readouterr()

    return run_main


def finish(file: str, **changes: object) -> RunConfig:
    config = RunConfig.model_validate(yaml.safe_load(Path(file).read_text()) | changes)
    train(config, World())
    return config


def refused(result: tuple[int, str, str]) -> str:
    """The one line of a command that was refused."""
    status, out, err = result
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_dry_run_prints_the_plan_and_writes_nothing(call: Call, file: str, tmp_path: Path) -> None:
    options = ("--model.generator.output", "masked", "--model.discriminator.nonlocal_blocks", "1")
    status, plan, _ = call("train", "--config", file, "--scaling.workers", "2", *options, "--dry-run")
    assert "2 blocks (non-local: 1), 2 channels, output masked; discriminators non-local after convolution 1\n" in plan
    assert status == 0
    assert "12 steps of 4 image pairs: 48 images, 4 epochs (12 images or 3 steps an epoch)" in plan
    assert "trainA 10, trainB 12, testA 5, testB 4 images" in plan
    assert "2 (scaling.workers), parts of the batch 2 + 2" in plan
    _, plan, _ = call("train", "--config", file, "--scaling.workers", "1,4", "--schedule.images", "40", "--dry-run")
    assert "40 images, 3.33 epochs" in plan
    assert "1 to 4 (scaling.workers), parts of the batch 1 + 1 + 1 + 1" in plan
    assert "cpu, gloo (no GPU in the cluster)" in plan
    generator = sum(
        p.numel()
        for p in Generator(RunConfig.model_validate(tiny.settings("x", tmp_path)).model.generator).parameters()
    )
    assert f"2 generators of {generator:,} and 2 discriminators" in plan
    assert "GFLOP a step" in plan
    assert f"{tmp_path}/runs/tiny: checkpoints every 16 images" in plan
    assert "at 0 images: there is no checkpoint" in plan
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_local_mode_and_of_a_run_that_goes_on(call: Call, file: str) -> None:
    finish(file)
    _, plan, _ = call("train", "--config", file, "--local", "--dry-run")
    assert "none: this process (--local)" in plan
    assert "nothing: the run is finished" in plan


def test_a_gpu_that_is_not_there_is_one_line(call: Call, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = call("train", "--config", file, "--local", "--scaling.gpu", "true")
    assert "a worker on a GPU was planned, and torch" in refused(result)
    assert refused(call("train", "--config", file, "--local", "--scaling.gpu", "true", "--dry-run")) == refused(result)
    _, plan, _ = call("train", "--config", file, "--local", "--scaling.gpu", "false", "--dry-run")
    assert "cpu (scaling.gpu false)" in plan


def test_the_plan_refuses_the_kernels_that_the_start_refuses(
    call: Call, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("cluster.settings.workers.this_machine.visible_gpus", lambda: 0)
    fused = ("train", "--config", file, "--step.kernels", "fused")
    said = "error: step.kernels: fused kernels do not run here: the device is cpu; use auto or plain"
    status, _, err = call(*fused, "--local")
    assert (status, err.splitlines()[-1]) == (2, said)
    assert refused(call(*fused, "--local", "--dry-run")) == said
    assert refused(call(*fused, "--dry-run")) == said
    # Whose machines may have GPUs.
    status, plan, _ = call(*fused, "--address", "nowhere:1", "--dry-run")
    assert status == 0
    assert "warning     step.kernels: fused kernels do not run here" in plan


def test_the_plan_for_a_cluster_does_not_judge_it_by_this_machine(
    call: Call, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = ("train", "--config", file, "--dry-run", "--scaling.workers", "4", "--scaling.cpus_per_worker", "64")
    assert "do not fit" in refused(call(*large))
    status, plan, _ = call(*large, "--address", "nowhere:1")
    assert status == 0
    assert "where       the cluster, which is not queried" in plan
    assert "4 (scaling.workers), parts of the batch 1 + 1 + 1 + 1; 64 CPU cores each" in plan
    assert "\nmachine " not in plan
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    _, plan, _ = call("train", "--config", file, "--dry-run", "--local")
    assert "\nwhere " not in plan
    assert "\nmachine " in plan


def test_a_finished_run_says_so(call: Call, file: str, tmp_path: Path) -> None:
    finish(file)
    driver_address = ("--address", "nowhere:1")
    status, out, _ = call("train", "--config", file, *driver_address)
    assert status == 0
    assert "tiny is finished: 48 images seen" in out
    assert f"{tmp_path}/runs/tiny/checkpoint_*" in out.replace("'", "")


def test_another_configuration_under_the_same_name_is_refused(call: Call, file: str, tmp_path: Path) -> None:
    config = finish(file)
    about = {"config": config.model_dump(mode="json"), "dataset": "others"}
    RunFolder(config.storage, config.name).write_json("run.json", about)
    status, _, err = call("train", "--config", file, "--optimizer.lr", "0.1", "--scaling.max_failures", "9")
    assert status == 2
    first, *rest = err.splitlines()
    goes_on = f"with --fork-of {quote(f'{tmp_path}/runs/tiny')} it continues from that run"
    assert first.startswith(
        f"error: {tmp_path}/runs/tiny holds another run; choose another --name ({goes_on}), or take"
    )
    assert rest[0] == "  optimizer.lr: 0.0002 there, 0.1 here"
    assert "other images than before" in rest[1]
    assert len(rest) == 2


def test_what_does_not_change_the_weights_may_change(call: Call, file: str) -> None:
    finish(file)
    changes = ("--checkpoint.every", "9", "--observe.every", "3", "--data.prefetch", "9", "--scaling.max_failures", "9")
    another_disk = ("--data.cache_gb", "5", "--data.cache_folder", "/elsewhere")
    assert call("train", "--config", file, *changes, *another_disk)[0] == 0


def test_no_dataset(call: Call, file: str, tmp_path: Path) -> None:
    line = refused(call("train", "--config", file, "--data.uri", str(tmp_path / "nowhere")))
    assert "no dataset at" in line
    assert "python -m data_shards pack" in line


def test_too_few_images_for_a_batch(call: Call, file: str) -> None:
    line = refused(call("train", "--config", file, "--data.global_batch=11"))
    assert line.startswith("error: data.global_batch: 11, but trainA has only 10 images")


def test_images_smaller_than_the_crop_are_enlarged_and_the_plan_says_so(call: Call, file: str) -> None:
    status, out, err = call("train", "--config", file, "--data.load_size=32", "--data.crop_size=32", "--dry-run")
    assert status == 0, err
    warned = [line for line in out.splitlines() if line.startswith("warning") and "enlarged" in line]
    assert [line.split()[1] for line in warned] == ["trainA", "trainB"]
    assert "images of 24 px width or 24 px height, which are enlarged to data.load_size 32 px" in warned[0]


def test_the_plan_of_a_run_for_other_machines(call: Call, file: str, tmp_path: Path) -> None:
    choice = ("--scaling.labels", "zone=in(a,b)", "--scaling.accelerator", "H100")
    status, out, err = call("train", "--config", file, *choice, "--dry-run")
    assert status == 0, err
    (where,) = (line for line in out.splitlines() if line.startswith("where "))
    assert where.endswith(
        "machines with accelerator H100 and zone=in(a,b); this is not one; they are assumed to be like it"
    )
    # A Ray of its own has this machine alone.
    line = refused(call("train", "--config", file, "--scaling.labels", "zone=a"))
    assert "scaling.labels: no machine of the cluster has zone=a; its machine has " in line
    assert not (tmp_path / "runs" / "tiny").exists()


def test_more_workers_than_this_machine_holds(call: Call, file: str, tmp_path: Path) -> None:
    line = refused(call("train", "--config", file, "--data.global_batch", "10", "--scaling.workers", "4"))
    assert "scaling.workers: 4 workers" in line
    assert "room for 3 workers" in line
    assert not (tmp_path / "runs" / "tiny").exists()


def test_storage_that_cannot_be_written(call: Call, file: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    line = refused(call("train", "--config", file, "--storage", str(tmp_path / "taken")))
    assert "cannot be written" in line
    assert "choose another with --storage" in line


def test_storage_of_a_kind_that_nothing_opens(call: Call, file: str) -> None:
    assert "storage: nope://bucket/runs cannot be opened" in refused(
        call("train", "--config", file, "--storage", "nope://bucket/runs?option=hidden")
    )


def test_relative_paths_in_a_ray_job_are_refused(call: Call, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    line = refused(call("train", "--config", file, "--storage", "runs"))
    assert "storage: 'runs' is relative" in line
    assert "absolute path or a URI" in line


@pytest.mark.parametrize("taken", ["sweep.json", "manifest.json"])
def test_a_run_is_not_mixed_with_something_else(call: Call, file: str, tmp_path: Path, taken: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / taken).write_text("{}")
    status, _, err = call("train", "--config", file, "--local", "--storage", str(tmp_path), "--name", "taken")
    assert (status, f"taken holds a {'sweep' if 'sweep' in taken else 'dataset'}" in err) == (2, True), err
    assert len(list((tmp_path / "taken").iterdir())) == 1


def test_torchrun_needs_local(call: Call, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in driver.GROUP_VARIABLES | {"WORLD_SIZE"}:
        monkeypatch.setenv(name, "1" if name == "RANK" else "2")
    status, _, err = call("train", "--config", file)
    assert (status, err.startswith("error: torchrun has started 2 processes of this command")) == (2, True), err


@pytest.mark.parametrize(
    ("given", "there", "joined"),
    [("h:1", "", "h:1"), (None, "h:2", "h:2"), (None, "", None), ("", "local", None), ("local", "h:2", None)],
)
def test_which_cluster_is_joined(
    given: str | None, there: str, joined: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", there)
    assert cluster_address(given) == joined


def test_local_training_from_the_command_line(call: Call, file: str, tmp_path: Path) -> None:
    arguments = ("train", "--config", file, "--local")
    status, out, err = call(*arguments)
    assert status == 0
    assert "tiny has finished: 48 images seen" in out
    assert "tiny: 48 of 48 images" in err
    lines = (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["images"] == 48
    assert "is finished" in call(*arguments)[1]


def test_a_breakpoint_works_in_local_mode(call: Call, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs in the command's own process and main thread, and leaves its standard input alone."""
    rate = loop.learning_rate

    def stop(lr: float, schedule: ScheduleConfig, images_seen: int, total: int) -> float:
        if images_seen == 24:
            assert threading.current_thread() is threading.main_thread()
            breakpoint()
        return rate(lr, schedule, images_seen, total)

    monkeypatch.setattr(loop, "learning_rate", stop)
    # What Python does by itself: pytest has put something else in its place.
    monkeypatch.setattr(sys, "breakpointhook", lambda: pdb.Pdb().set_trace(sys._getframe(1)))
    monkeypatch.setattr(sys, "stdin", io.StringIO("p images_seen * 1000\ncontinue\n"))
    status, out, _ = call("train", "--config", file, "--local")
    assert status == 0
    assert "(Pdb) 24000" in out
    assert "tiny has finished: 48 images seen" in out


def test_costs_are_those_of_the_networks() -> None:
    # 2 * 9 * 256 * 256 * 64 * 64 a 3x3 convolution of 256 channels at a quarter of 256 px; by torch's own count in all.
    cost = measure(lambda: Generator(GeneratorConfig(nonlocal_blocks=())), 256)
    fewer = measure(lambda: Generator(GeneratorConfig(nonlocal_blocks=(), num_blocks=8)), 256)
    assert cost.forward_flops - fewer.forward_flops == 2 * (2 * 9 * 256 * 256 * 64 * 64)
    assert cost.parameters - fewer.parameters == 2 * 9 * 256 * 256
    # Known from the paper's setting: 99.1 and 6.29 GFLOP forward.
    assert cost.forward_flops == pytest.approx(99.1e9, rel=0.01)
    assert measure(PatchDiscriminator, 256).forward_flops == pytest.approx(6.29e9, rel=0.01)


def test_memory_is_that_of_one_round_and_of_the_average(uri: str, tmp_path: Path) -> None:
    """Images of 16 px: activations of 4 pairs, or of one at a time, and a copy of both generators."""

    def memory(**step: Any) -> float:
        config = tiny.config(uri, tmp_path, step={"pool_size": 0, **step})
        return Costs.of(config).step_memory(config).worker_bytes(config, 1)

    costs = Costs.of(tiny.config(uri, tmp_path))
    pair = costs.generator_passes * costs.generator.saved_bytes + 2 * costs.discriminator.saved_bytes
    assert memory() - memory(micro_batch=1) == 3 * pair
    assert memory(micro_batch=8) == memory()
    assert memory(ema_half_life=100) - memory() == 2 * costs.generator.parameters * 4
