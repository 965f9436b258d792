"""A sweep as a job: one command line, whatever files its options came from."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from tuning import submit
from tuning.settings.options import parse_sweep, presets

PLACES = ("--storage", "s3://bucket/it's", "--data.uri", "s3://bucket/data?region=eu&scheme=http")


def same(*arguments: str) -> bool:
    """Whether the job's command says what these arguments do."""
    here, there = parse_sweep(arguments), parse_sweep(submit.as_options(parse_sweep(arguments)))
    origin = {"train": None, "override": {}}
    assert there.config.train is None
    return here.base == there.base and here.config.model_copy(update=origin) == there.config.model_copy(update=origin)


@pytest.mark.parametrize("name", presets())
def test_the_presets_survive_as_options(name: str) -> None:
    assert same("--preset", name, *PLACES, "--scaling.workers", "1,2", "--data.global_batch", "4")


@settings(max_examples=20, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "search": st.sampled_from(["random", "optuna"]),
            "trials": st.integers(1, 10**6),
            "seed": st.integers(0, 2**32 - 1),
            "budget": st.fixed_dictionaries(
                {"images": st.none() | st.integers(1, 10**12), "hours": st.none() | st.floats(1e-3, 1e6)}
            ),
            "asha": st.fixed_dictionaries({"reduction": st.floats(1.01, 100)}),
            "scheduler": st.sampled_from(["none", "asha"]),
            "space": st.none() | st.just({"optimizer.beta1": {"uniform": [0.1, 0.9]}}) | st.just({"seed": {"choice": [1, 2]}}),
        }
    )
)  # fmt: skip
def test_a_sweeps_file_survives_as_options(tmp_path_factory: pytest.TempPathFactory, sweep: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    run = tiny.settings("/shared/data", folder, validation={"every": 16, "images": 4}, observe={"previews": None})
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    written = sweep | {"name": "few", "storage": "/shared/sweeps", "train": str(folder / "run.yaml")}
    (folder / "sweep.yaml").write_text(json.dumps(written | {"override": {"optimizer.lr": 0.03, "seed": 4}}))
    assert same("--config", str(folder / "sweep.yaml"), "--optimizer.lr", "0.04")


def test_a_job_is_a_sweep_and_needs_no_file() -> None:
    job = submit.make_job(["--preset", "paper", *PLACES]).with_environment(variables=["NCCL_IB_DISABLE=1"])
    words = shlex.split(job.command)
    assert words[:6] == ["python", "-m", "tuning", "sweep", "--name=paper", "--storage=s3://bucket/it's"]
    assert not any(word.endswith(".yaml") for word in words)
    assert (job.name, job.metadata) == ("paper", {"sweep": "paper", "storage": "s3://bucket/it's"})
    assert job.variables["NCCL_IB_DISABLE"] == "1"
    # Sent on, and not one of the options by which a job is known.
    assert submit.make_job(["--preset", "paper", *PLACES, "--take-over"]).command == f"{job.command} --take-over"


def test_what_is_wrong_is_said_before_anything_is_sent() -> None:
    with pytest.raises(UserError) as error:
        submit.main(["--preset", "paper", "--data.uri", "data", "--env", "HF_TOKEN=hidden", "--address", "nowhere"])
    lines = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["storage", "data.uri", "HF_TOKEN"]
    assert "hidden" not in str(error.value)
    with pytest.raises(UserError, match="--nmae: no such option"):
        submit.main(["--preset", "paper", *PLACES, "--nmae", "x"])


def test_the_plan_is_printed_and_nothing_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    for module in ("job", "submission"):
        monkeypatch.setattr(f"cluster.jobs.{module}.ROOT", tmp_path)
    assert submit.main(["--preset", "paper", *PLACES, "--dry-run"]) == 0
    assert "command     python -m tuning sweep --name=paper " in capsys.readouterr().out
