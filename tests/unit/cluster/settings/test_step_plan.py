"""How the plan says that steps will be computed, and what it refuses as the start would."""

from typing import Any

import pytest

from cluster.settings.config import RunConfig
from cluster.settings.step_plan import step_lines
from data_shards.errors import UserError

COVERED = {"generator": {"upsample": "transposed"}}


def config(model: dict[str, Any] | None = None, freeze: list[str] | None = None, **step: Any) -> RunConfig:
    init = {"from": "weights", "freeze": freeze} if freeze else {}
    return RunConfig.model_validate({"data": {"uri": "x"}, "model": model or COVERED, "step": step, "init": init})


def lines(asked: RunConfig, *, on_gpu: bool = False, is_certain: bool = True) -> list[tuple[str, str]]:
    return step_lines(asked, on_gpu=on_gpu, world=1, is_certain=is_certain)


def test_on_a_cpu_the_kernels_are_plain_and_fused_ones_refused() -> None:
    assert lines(config()) == [
        ("step", "plain kernels (the device is cpu), no CUDA graph (the device is cpu), fp32, NCHW")
    ]
    with pytest.raises(UserError, match="fused kernels do not run here: the device is cpu; use auto or plain"):
        lines(config(kernels="fused"))


def test_of_the_machines_of_a_cluster_this_one_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (_, step), (kind, warning) = lines(config(kernels="fused"), is_certain=False)
    assert (step, kind) == ("fused kernels (step.kernels)", "warning")
    assert warning.endswith("; so says this machine: the workers need GPUs")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ((_, step),) = lines(config(kernels="fused"), on_gpu=True)
    assert step.startswith("fused kernels where the worker's GPU has compute capability 8.0 or newer, and Triton")
    assert "else the start is refused" in step
    ((_, step),) = lines(config(kernels="plain"), on_gpu=True)
    assert step == "plain kernels (step.kernels plain), fp32"
    uncovered = {"generator": {"upsample": "resize"}}
    ((_, step),) = lines(config(uncovered), on_gpu=True)
    assert step == "plain kernels (generator.upsample resize), fp32"
    with pytest.raises(UserError, match=r"do not run there: generator\.upsample resize; use auto or plain"):
        lines(config(uncovered, kernels="fused"), on_gpu=True)


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        (["generator_ab.nothing"], "init.freeze: there is no generator_ab.nothing; there are generator_ab."),
        (["generator_ab", "generator_ba"], "init.freeze: nothing of the generators is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(freeze: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        lines(config(freeze=freeze))
    lines(config(freeze=["generator_ab"]))
