"""What `submit` decides before it talks to a cluster."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import submit
from cluster.jobs.job import SENT
from cluster.settings.config import RunConfig
from cluster.settings.options import as_options, parse_options
from data_shards.errors import UserError

ROOT = Path(__file__).parents[3]
PLACES = ("--storage", "s3://bucket/runs", "--data.uri", "s3://bucket/data")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SENT, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        # Set first, so that it is put back however it was.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def refused(*arguments: str) -> list[str]:
    with pytest.raises(UserError) as error:
        submit.main(arguments)
    return str(error.value).splitlines()


def same(config: RunConfig) -> bool:
    return parse_options(as_options(config)).config == config


@settings(max_examples=20, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**32 - 1),
            "optimizer": st.fixed_dictionaries({"lr": st.floats(1e-12, 1.0), "name": st.sampled_from(["adam", "nadam"])}),
            "scaling": st.fixed_dictionaries({"workers": st.sampled_from([None, 3, (2, 8)]), "gpu": st.sampled_from([None, False])}),
            "step": st.fixed_dictionaries({"channels_last": st.booleans(), "ema_half_life": st.sampled_from([None, 1000])}),
            "model": st.fixed_dictionaries(
                {"generator": st.fixed_dictionaries({"nonlocal_blocks": st.lists(st.integers(0, 8), unique=True).map(sorted)})}
            ),
            "validation": st.fixed_dictionaries({"every": st.sampled_from([None, 100])}),
            "observe": st.fixed_dictionaries({"sinks": st.sampled_from([(), ("mlflow",), ("wandb", "a.b:C")])}),
        }
    )
)  # fmt: skip
def test_a_configuration_survives_as_options(sections: dict[str, Any]) -> None:
    places = {"storage": "s3://a b/it's", "data": {"uri": "s3://x?region=eu&scheme=http", "global_batch": 8}}
    assert same(RunConfig.model_validate(places | sections))


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_the_configurations_that_come_along_survive_as_options(name: str) -> None:
    assert same(parse_options(["--config", str(ROOT / "cluster" / "configs" / f"{name}.yaml")]).config)


def test_a_job_is_the_run_whatever_file_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tiny.settings("/shared/data", Path("/shared/runs"))))
    job = submit.make_job(["--config", str(file), "--scaling.workers", "2"])
    assert job.command.startswith("python -m cluster train --name=tiny --storage=/shared/runs ")
    assert {"--data.uri=/shared/data", "--scaling.workers=2"} <= set(job.command.split())
    assert str(file) not in job.command
    assert job.metadata == {"run": "tiny", "storage": "/shared/runs"}


def test_a_job_that_takes_a_fork_over_is_the_same_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.settings.fork.inherited", lambda reference, fields: {})
    fork = [*PLACES, "--name", "longer", "--fork-of", "s3://bucket/runs/short"]
    command = submit.make_job(fork).command
    assert submit.make_job([*fork, "--take-over"]).command == f"{command} --take-over"


def test_the_store_is_found_from_there_and_secrets_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    job = submit.make_job(PLACES).with_environment(variables=["NCCL_IB_DISABLE=1"])
    assert job.variables == {
        "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": "http://store:9000", "NCCL_IB_DISABLE": "1",
    }  # fmt: skip
    assert "hidden" not in str(job)


def test_trackers_are_found_from_there_and_their_keys_are_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("WANDB_API_KEY", "hidden")
    assert submit.make_job(PLACES).variables == {"MLFLOW_TRACKING_URI": "http://tracker:5000"}
    names = ["WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden@tracker:5000")
    lines = refused(*PLACES, *(f"--env={name}=hidden" for name in names))
    assert {line.partition(":")[0] for line in lines} == {*names, "MLFLOW_TRACKING_URI"}
    assert all("in the environment of `ray start`" in line and "envFrom a Secret" in line for line in lines)
    assert "hidden" not in "".join(lines)


def test_what_is_wrong_is_said_before_anything_is_sent() -> None:
    lines = refused(
        *("--address", "http://127.0.0.1:1", "--local", "--data.uri", "data", "--env", "novalue"),
        *("--env", "HF_TOKEN=hidden", "--env", "STORE=http://me:hidden@store"),
    )
    assert [line.partition(":")[0] for line in lines] == [
        "storage", "data.uri", "--local", "--env novalue", "HF_TOKEN", "STORE",
    ]  # fmt: skip
    assert "hidden" not in "".join(lines)


def test_a_mistake_in_an_option_of_the_run() -> None:
    assert refused(*PLACES, "--optimizer.rl=1") == ["--optimizer.rl: no such option; did you mean --optimizer.lr?"]


PHOTOS, PAINTED = "s3://bucket/photos", "s3://bucket/painted"


def test_a_translation_is_sent_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["translate", "--weights", "s3://bucket/run@best", "--size", "64", PHOTOS, PAINTED, "--strict"]
    job = submit.make_job(given).with_environment(["*.log"], ["NAME=value"])
    assert job.command == f"python -m cluster {' '.join(given)}"
    assert (job.name, job.metadata) == ("translate-painted", {"translate": PAINTED})
    assert "*.log" in job.excludes
    assert job.variables["NAME"] == "value"


def test_what_a_translation_would_lack_on_the_cluster_is_said_before_it_is_sent() -> None:
    problems = refused(
        "translate", "--weights", "run", "photos", "s3://key:secret@bucket/painted", "--env", "API_KEY=1"
    )
    assert [problem.partition(":")[0] for problem in problems] == ["IN", "--weights", "OUT", "API_KEY"]
    assert not any("key:secret" in problem for problem in problems)
    assert "--size" in refused("translate", "--weights", "s3://b/run", "--size", "0", PHOTOS, PAINTED)[0]
    assert "--workers 0" in refused("translate", "--weights", "s3://b/run", "--workers", "0", PHOTOS, PAINTED)[0]
