"""The loop bare: no Ray, no process group."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from cluster.inspection.snapshot import take_snapshot
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records import events
from cluster.records.metrics_file import Record
from cluster.records.sinks import Forward
from cluster.settings.config import RunConfig
from cluster.training import loop
from cluster.training.guards import out_of_memory_explained
from data_shards.errors import GpuMemoryError, NonFiniteLossError, UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan import ScheduleConfig, TrainingStep
from nla_cyclegan.training.optimizer import loss_scale
from nla_cyclegan.weights.checkpoint import complete_checkpoints

ALONE = World()


class StoppedError(Exception):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


def train(config: RunConfig, stop_at: int | None = None, reports: list[Any] | None = None) -> Record:
    """Run alone, to the end or until that many images."""

    def look(record: Record) -> None:
        if stop_at is not None and record.get("images", 0) >= stop_at:
            raise StoppedError

    reported = reports.append if reports is not None else lambda metrics: None
    return loop.train(config, ALONE, report=reported, sinks=[Forward(look)])


def newest(config: RunConfig) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint."""
    return tiny.newest(RunFolder(config.storage, config.name))


def lines(config: RunConfig) -> list[Record]:
    text = (Path(config.storage) / config.name / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


TIMED = ("time", "images_per_s", "memory_gb", "data_wait", "checkpoint_wait", "validation_wait", "preview_wait")


PAPERS = {
    "generator": {"base_channels": 2, "num_blocks": 2, "output": "masked", "nonlocal_blocks": "all", "nonlocal_gain": "fixed"},
    "discriminator": {"base_channels": 2, "num_layers": 1, "nonlocal_blocks": [0, 1]},
}  # fmt: skip


FP16 = {"step": {"precision": "fp16", "pool_size": 6}, "loss": {"augment": ["color", "translation", "cutout"]}}


@pytest.mark.parametrize(
    "changes", [{}, {"model": PAPERS}, FP16], ids=["defaults", "all that the paper can be read as", "fp16, augmented"]
)
def test_stopped_and_continued_equals_undisturbed_bit_for_bit(
    uri: str, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In fp16 the scale changes before and after the stop.
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**24)
    monkeypatch.setattr(loss_scale, "DOUBLES_AFTER", 3)
    undisturbed = tiny.config(uri, tmp_path / "one", **changes)
    train(undisturbed)
    disturbed = tiny.config(uri, tmp_path / "two", **changes)
    # After 40 of 48 images; the newest checkpoint is at 32.
    with pytest.raises(StoppedError):
        train(disturbed, stop_at=40)
    assert complete_checkpoints(RunFolder(disturbed.storage, "tiny"))[0] == "checkpoint_000000000032"
    train(disturbed)
    one, two = newest(undisturbed), newest(disturbed)
    assert one.keys() == two.keys()
    assert any("mu_product" in name for name in one)
    assert any("pool-0" in name for name in one)
    assert any("loss_scales" in name for name in one) == (changes is FP16)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    # Neither a hole nor a repetition in the log, and the same values.
    histories = [
        [{k: v for k, v in line.items() if k not in TIMED} for line in lines(c)] for c in (undisturbed, disturbed)
    ]
    assert histories[0] == histories[1]
    assert [line["images"] for line in histories[0]] == [8, 16, 24, 32, 40, 48]


def test_every_record_has_what_each_non_local_block_adds_to_its_input(uri: str, tmp_path: Path) -> None:
    """A learned gain starts at 0 and opens; a fixed one is open; without such blocks there is nothing to record."""

    def of(name: str, **model: Any) -> list[dict[str, float]]:
        config = tiny.config(uri, tmp_path / name, model={**tiny.settings(uri, tmp_path)["model"], **model})
        train(config)
        return [{k: v for k, v in line.items() if k.startswith("attention_")} for line in lines(config)]

    learned = of("learned")
    assert len(learned) == 48 // 8
    assert all(record.keys() == {"attention_generator_ab_1", "attention_generator_ba_1"} for record in learned)
    assert 0 < learned[0]["attention_generator_ab_1"] < learned[-1]["attention_generator_ab_1"] < 1
    fixed = of("fixed", **PAPERS)
    assert fixed[0].keys() == {
        *(f"attention_generator_{way}_{block}" for way in ("ab", "ba") for block in (0, 1)),
        *(f"attention_discriminator_{domain}_{place}" for domain in "ab" for place in (0, 1)),
    }
    assert all(value > 0 for record in fixed for value in record.values())
    assert of("none", generator={"base_channels": 2, "num_blocks": 1, "nonlocal_blocks": "none"}) == [{}] * 6


def test_the_event_log_has_what_was_saved_skipped_and_resumed_from(uri: str, tmp_path: Path) -> None:
    config, folder = tiny.config(uri, tmp_path), RunFolder(str(tmp_path), "tiny")
    with events.opened(folder, "1aaaa", "rank-0"):
        with pytest.raises(StoppedError):
            train(config, stop_at=40)
        newest, before = complete_checkpoints(folder)
        folder.write(f"{newest}/generator_ab.safetensors", b"damaged")
        train(config)
    happened = [f"{event['kind']}: {event['text']}" for event in take_snapshot(folder).events]
    again = "checkpoint_000000000032-2"
    assert [line.partition(": generator_ab")[0] for line in happened] == [
        f"saved: {before}", f"saved: {newest}", f"skipped: {newest}", f"resume: from {before}",
        f"saved: {again}", "saved: checkpoint_000000000048",
    ]  # fmt: skip


def test_the_seed_matters(uri: str, tmp_path: Path) -> None:
    ends = []
    for seed in (0, 1):
        config = tiny.config(uri, tmp_path / str(seed), seed=seed, schedule={"images": 8})
        train(config)
        ends.append(newest(config)["generator_ab.safetensors/encoder.0.weight"])
    assert not torch.equal(*ends)


def test_steps_follow_the_clock(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = TrainingStep.__call__

    def call(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        calls.append((images_seen, lr, tuple(a.shape), a.dtype))
        return real(self, a, b, images_seen=images_seen, lr=lr)

    monkeypatch.setattr(loop.TrainingStep, "__call__", call)
    train(tiny.config(uri, tmp_path, schedule={"images": 24, "constant": 0.5}, optimizer={"lr": 0.001}))
    assert [images_seen for images_seen, *_ in calls] == list(range(0, 24, 4))
    assert [lr for _, lr, *_ in calls] == pytest.approx([0.001] * 4 + [0.001 * 2 / 3, 0.001 / 3])
    assert {call[2:] for call in calls} == {((4, 3, 16, 16), torch.uint8)}


def test_a_finished_run_has_nothing_left_to_do(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.config(uri, tmp_path, schedule={"images": 8})
    train(config)
    before = newest(config)
    monkeypatch.setattr(loop.TrainingStep, "__call__", lambda *args, **kwargs: pytest.fail("trained"))
    train(config)
    after = newest(config)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_loss_that_is_not_finite_stops_before_a_weight_moves(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(uri, tmp_path)
    steps = []
    real = TrainingStep.__call__

    def call(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        if images_seen == 20:
            steps.append((self, {n: p.clone() for n, p in self.networks["generator_ab"].named_parameters()}))
            self.networks["discriminator_b"].register_forward_hook(lambda judge, images, scores: scores * math.nan)
        return real(self, a, b, images_seen=images_seen, lr=lr)

    monkeypatch.setattr(loop.TrainingStep, "__call__", call)
    with pytest.raises(NonFiniteLossError) as caught:
        train(config)
    line = str(caught.value)
    assert "not finite after 20 images" in line
    assert "rank 0: generator_total = nan, gan_ab = nan" in line
    assert line.endswith("Lower --optimizer.lr, under another --name")
    ((step, before),) = steps
    assert all(torch.equal(before[name], p) for name, p in step.networks["generator_ab"].named_parameters())
    assert complete_checkpoints(RunFolder(config.storage, "tiny")) == ["checkpoint_000000000016"]


def test_a_step_that_was_not_finite_is_noticed_one_step_later_and_never_written_down(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is due for a long time: the guard alone notices, while the next step is under way."""
    config = tiny.config(uri, tmp_path, observe={"every": 48}, checkpoint={"every": 48}, step={"precision": "bf16"})
    seen = []
    real = TrainingStep.__call__

    def call(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        seen.append(images_seen)
        losses = real(self, a, b, images_seen=images_seen, lr=lr)
        if images_seen == 8:
            self.finite &= False
        return losses

    monkeypatch.setattr(loop.TrainingStep, "__call__", call)
    with pytest.raises(NonFiniteLossError) as caught:
        train(config)
    assert "not finite after 8 images (a gradient, though no loss itself)" in str(caught.value)
    assert "or use --step.precision fp32" in str(caught.value)
    assert seen == [0, 4, 8, 12]
    assert lines(config) == []
    assert complete_checkpoints(RunFolder(config.storage, "tiny")) == []


@pytest.mark.parametrize("section", ["observe", "validation", "checkpoint"])
def test_what_is_about_to_be_written_down_is_checked_first(
    section: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {"observe": {"every": 48}, "checkpoint": {"every": 48}, section: {"every": 8}}
    config = tiny.config(uri, tmp_path, **every)
    real = TrainingStep.__call__

    def call(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        losses = real(self, a, b, images_seen=images_seen, lr=lr)
        if images_seen == 12:
            self.finite &= False
        return losses

    monkeypatch.setattr(loop.TrainingStep, "__call__", call)
    with pytest.raises(NonFiniteLossError, match="not finite after 12 images"):
        train(config)
    assert [line["images"] for line in lines(config)] == ([] if section == "checkpoint" else [8])
    kept = ["checkpoint_000000000008"] if section == "checkpoint" else []
    assert complete_checkpoints(RunFolder(config.storage, "tiny")) == kept


def test_rounds_average_and_clipping_resume_bit_for_bit_too(uri: str, tmp_path: Path) -> None:
    changes = {
        "step": {"micro_batch": 3, "clip_norm": 2.0, "ema_half_life": 8},
        "validation": {"every": 24, "images": 4},
    }
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **changes) for name in ("one", "two"))
    train(undisturbed)
    with pytest.raises(StoppedError):
        train(disturbed, stop_at=40)
    train(disturbed)
    one, two = newest(undisturbed), newest(disturbed)
    assert one.keys() == two.keys()
    assert any(name.startswith("training_generator_ba") for name in one)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    scores = [[line["swd_A2B"] for line in lines(config) if "swd_A2B" in line] for config in (undisturbed, disturbed)]
    assert scores[0] == scores[1]


def test_evaluation_on_held_out_images(uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path, validation={"every": 16, "images": 4}, schedule={"images": 40})
    reports: list[Any] = []
    latest = train(config, reports=reports)
    evaluated = [line for line in lines(config) if "swd_B2A" in line]
    assert [line["images"] for line in evaluated] == [16, 32, 40]
    assert all(0 < line["swd_A2B"] < math.inf for line in evaluated)
    assert len(reports) == 3
    assert latest["swd_B2A"] == evaluated[-1]["swd_B2A"]
    assert "cycle_a" in reports[-1]


def test_the_log_averages_over_the_steps_of_an_interval(uri: str, tmp_path: Path) -> None:
    fine = tiny.config(uri, tmp_path / "fine", observe={"every": 1}, schedule={"images": 16})
    coarse = tiny.config(uri, tmp_path / "coarse", observe={"every": 16}, schedule={"images": 16})
    train(fine)
    train(coarse)
    (line,) = lines(coarse)
    for name in ("generator_total", "cycle_a", "discriminator_b"):
        assert line[name] == pytest.approx(sum(each[name] for each in lines(fine)) / 4)
    assert 0 <= line["data_wait"] <= 1


def test_tensorboard_events_tell_the_same(uri: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny.config(uri, tmp_path, observe={"tensorboard": True}, schedule={"images": 16})
    train(config)
    events = EventAccumulator(str(tmp_path / "tiny" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("cycle_a")] == [8, 16]
    assert [event.value for event in events.Scalars("cycle_a")] == pytest.approx(
        [line["cycle_a"] for line in lines(config)]
    )


def test_the_clock_counts_images() -> None:
    clock = Clock(batch=6, epoch=100, total=150)
    assert [n for n in range(6, 61, 6) if clock.due(20, n)] == [24, 42, 60]
    # A step that passes several multiples counts once.
    assert [n for n in range(6, 31, 6) if clock.due(2, n)] == [6, 12, 18, 24, 30]
    assert not clock.ended(144)
    assert clock.ended(150)
    assert clock.due(1000, 150)


def test_an_epoch_is_as_long_as_the_larger_domain(uri: str) -> None:
    from data_shards import open_dataset

    clock = Clock.of(ScheduleConfig(epochs=2), open_dataset(uri), 5)
    assert (clock.epoch, clock.total) == (12, 25)


def in_a_capture() -> None:
    """As it comes from the capture of a CUDA graph: the end of the capture fails as well, and hides why."""
    try:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 270.00 MiB.")
    finally:
        raise torch.AcceleratorError("CUDA error: capturing stream has unjoined work")


def at_once() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 270.00 MiB.")


@pytest.mark.parametrize("fail", [at_once, in_a_capture])
def test_too_little_memory_on_a_gpu_is_one_line_that_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**29, 80 * 2**30))

    def explained(pairs: int, **changes: Any) -> GpuMemoryError:
        config = tiny.config("shards", tmp_path, **changes)
        with pytest.raises(GpuMemoryError) as caught, out_of_memory_explained(config, torch.device("cuda"), pairs):
            fail()
        return caught.value

    error = explained(4)
    assert str(error) == (
        "the GPU has too little memory for a step of 4 image pairs (of data.global_batch 4) with step.micro_batch none, "
        "at 16 px and fp32: 0.5 of 80.0 GiB are free; give a smaller --step.micro_batch, which changes no result"
    )
    assert not error.retryable
    share = "0.5 of 80.0 GiB are free, 20.0 GiB are this worker's (scaling.gpus_per_worker 0.25)"
    assert share in str(explained(4, scaling={"gpus_per_worker": 0.25}))
    assert "for what a run has beside its steps (networks, evaluations at data.load_size 20) with" in str(explained(0))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")],
)
@pytest.mark.parametrize(
    ("where", "what"),
    [
        ((loop, "TrainingStep"), "what a run has beside its steps"),
        ((loop.TrainingStep, "__call__"), "a step of 4 image pairs"),
        ((loop.Validation, "maybe_run"), "what a run has beside its steps"),
    ],
)
def test_too_little_memory_of_the_machine_is_the_same_line(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: Any, what: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(*where, fail)
    with pytest.raises(GpuMemoryError, match=rf"the machine has too little memory for {what}.* GiB are free; give a"):
        train(tiny.config(uri, tmp_path))


def test_other_errors_of_a_step_stay_what_they_are(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the shapes do not match")

    monkeypatch.setattr(loop.TrainingStep, "__call__", fail)
    with pytest.raises(RuntimeError, match="the shapes do not match"):
        train(tiny.config(uri, tmp_path))


def test_rank_0_says_how_steps_are_computed(uri: str, tmp_path: Path) -> None:
    said: list[str] = []
    loop.train(tiny.config(uri, tmp_path, schedule={"images": 8}), ALONE, say=said.append)
    assert said == ["plain kernels (the device is cpu), no CUDA graph (the device is cpu), fp32, NCHW"]


def test_kernels_that_do_not_run_here_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step\.kernels: fused kernels do not run here: the device is cpu"):
        train(tiny.config(uri, tmp_path, step={"kernels": "fused"}))
