"""What lets a run go on under its name, and what does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from cluster.settings.config import RunConfig, differences
from cluster.settings.dry_run import plan_text
from cluster.settings.identity import about, decisive, versions
from cluster.settings.options import parse_options
from cluster.settings.preflight import check_shared, prepare, warnings
from data_shards.errors import UserError
from nla_cyclegan.weights.stored_score import ABOUT

# As version 0.1 stored it: what came later is missing, and `compile` is gone since.
STEP_OF_VERSION_0_1 = {
    "precision": "bf16", "channels_last": False, "compile": "default", "micro_batch": None,
    "clip_norm": None, "ema_half_life": None, "pool_size": 50,
}  # fmt: skip


def stored(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return tiny.config("shards", tmp_path, **changes).model_dump(mode="json")


def test_a_run_of_version_0_1_goes_on(tmp_path: Path) -> None:
    old = stored(tmp_path) | {"step": STEP_OF_VERSION_0_1}
    here = stored(tmp_path, step={"precision": "bf16", "pool_size": 50})
    assert differences(decisive(old), decisive(here)) == []
    assert RunConfig.model_validate(old).step == RunConfig.model_validate(here).step.model_copy(
        update={"channels_last": False}
    )


@pytest.mark.parametrize(
    "step",
    [
        {"kernels": "plain"}, {"graph": False}, {"channels_last": True}, {"cudnn_benchmark": False}, {"tf32": False},
        {"deterministic": True}, {"micro_batch": 1},
    ],
)  # fmt: skip
def test_how_a_step_is_computed_may_change(tmp_path: Path, step: dict[str, Any]) -> None:
    assert differences(decisive(stored(tmp_path)), decisive(stored(tmp_path, step=step))) == []


@pytest.mark.parametrize("step", [{"precision": "bf16"}, {"clip_norm": 1.0}, {"pool_size": 7}, {"ema_half_life": 9}])
def test_what_a_step_computes_may_not(tmp_path: Path, step: dict[str, Any]) -> None:
    (field,) = step
    (line,) = differences(decisive(stored(tmp_path)), decisive(stored(tmp_path, step=step)))
    assert line.startswith(f"step.{field}: ")


def test_a_field_that_a_stored_run_lacks_has_its_default(tmp_path: Path) -> None:
    old = stored(tmp_path)
    del old["model"]["generator"]["norm"], old["loss"], old["data"]["fit"]
    assert differences(decisive(old), decisive(stored(tmp_path))) == []
    kept = decisive(stored(tmp_path, data={"fit": "keep"}))
    assert "data.fit: stretch there, keep here" in differences(decisive(old), kept)
    changed = stored(tmp_path, model=old["model"] | {"generator": old["model"]["generator"] | {"norm": "group"}})
    assert "model.generator.norm: instance there, group here" in differences(decisive(old), decisive(changed))


def test_a_field_that_nobody_knows_is_a_difference(tmp_path: Path) -> None:
    old = stored(tmp_path)
    old["step"]["flux"] = 3
    assert differences(decisive(old), decisive(stored(tmp_path))) == ["step.flux: 3 there, None here"]


def test_torch_compile_in_a_file_or_an_option_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: {uri: shards}\nstep: {compile: default}\n")
    with pytest.raises(UserError) as caught:
        parse_options(["--config", str(file)])
    assert str(caught.value) == (
        f"step.compile: torch.compile is gone; step.kernels and step.graph are faster and on by default: remove this field from {file}"
    )
    with pytest.raises(UserError) as caught:
        parse_options(["--data.uri", "shards", "--step.compile=default"])
    assert str(caught.value).startswith("--step.compile: torch.compile is gone; ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("validation", "checkpoint", "keep_best", "counts"),
    [
        # Of 48 images in steps of 4; the end counts for both.
        (12, 16, 1, "4 evaluations and 3 checkpoints, 1 of them at the same step (after multiples of 48 images, and at the end)"),
        (12, 20, 1, "4 evaluations and 3 checkpoints, 1 of them at the same step (after multiples of 60 images, and at the end)"),
        # Evaluated after 8, 16, 24, 28, 36, 44 and 48 images.
        (7, 20, 1, "7 evaluations and 3 checkpoints, 1 of them at the same step; only those"), (9, 20, 1, None),
        (12, 16, 0, None), (None, 16, 1, None), (8, 16, 1, None), (16, 8, 1, None), (16, 16, 1, None), (100, 16, 1, None),
    ],
)  # fmt: skip
def test_evaluations_that_seldom_meet_a_checkpoint_are_warned_of(
    tmp_path: Path, validation: int | None, checkpoint: int, keep_best: int, counts: str | None
) -> None:
    changes = {"validation": {"every": validation}, "checkpoint": {"every": checkpoint, "keep_best": keep_best}}
    config = tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "runs", **changes)
    prepared = prepare(config)
    assert counts is None if not (found := warnings(prepared)) else counts in found[0]
    assert ("seldom meet" in plan_text(prepared, local=True)) == (counts is not None)


def test_a_run_that_goes_on_with_other_code_or_packages_is_warned_of(tmp_path: Path) -> None:
    prepared = prepare(tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "runs"))

    def warned(**recorded: Any) -> list[str]:
        prepared.folder.write_json(ABOUT, about(prepared.config, prepared.dataset) | recorded)
        return warnings(replace(prepared, checkpoints=["checkpoint_000000000016"]))

    now = versions()
    assert warned() == warned(versions={}) == warned(versions=None) == []
    # Runs of before the code was recorded.
    assert warned(versions={name: now[name] for name in now if name != "code"}) == []
    (line,) = warned(versions=now | {"torch": "1.0", "code": "123456789abc"})
    changed = f"code: 123456789abc there, {now['code']} here; torch: 1.0 there, {now['torch']} here"
    assert line == f"the run began with other versions, and may take another course from here on ({changed})"
    assert warnings(prepared) == []


def test_a_worker_without_the_folder_names_its_machine(tmp_path: Path) -> None:
    check_shared(tiny.config(str(tmp_path), tmp_path))
    check_shared(tiny.config("s3://bucket/data", tmp_path))
    for field, config in (
        ("data.uri", tiny.config(f"{tmp_path}/elsewhere", tmp_path)),
        ("storage", tiny.config(str(tmp_path), tmp_path / "elsewhere")),
    ):
        said = rf"{field}: {tmp_path}/elsewhere is not on \S+, where a worker of this run is; .* \(--{field} s3"
        with pytest.raises(UserError, match=said):
            check_shared(config)
