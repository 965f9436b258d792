"""What `submit` decides before it talks to a cluster."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import submit
from cluster.settings.config import RunConfig
from cluster.settings.options import parse_options
from data_shards.errors import UserError

PLACES = ("--storage", "s3://bucket/runs", "--data.uri", "s3://bucket/data")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*submit.SENT, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        # Set first, so that it is put back however it was.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def refused(*arguments: str) -> list[str]:
    with pytest.raises(UserError) as error:
        submit.main(arguments)
    return str(error.value).splitlines()


def same(config: RunConfig) -> bool:
    return parse_options(submit.as_options(config)).config == config


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
        }
    )
)  # fmt: skip
def test_a_configuration_survives_as_options(sections: dict[str, Any]) -> None:
    places = {"storage": "s3://a b/it's", "data": {"uri": "s3://x?region=eu&scheme=http", "global_batch": 8}}
    assert same(RunConfig.model_validate(places | sections))


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_the_configurations_that_come_along_survive_as_options(name: str) -> None:
    assert same(parse_options(["--config", f"cluster/configs/{name}.yaml"]).config)


def test_a_job_is_the_run_whatever_file_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tiny.settings("/shared/data", Path("/shared/runs"))))
    job = submit.make_job(["--config", str(file), "--scaling.workers", "2"])
    assert job.command.startswith("python -m cluster train --name=tiny --storage=/shared/runs ")
    assert {"--data.uri=/shared/data", "--scaling.workers=2"} <= set(job.command.split())
    assert str(file) not in job.command
    assert job.metadata == {"run": "tiny", "storage": "/shared/runs"}


def test_the_store_is_found_from_there_and_secrets_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    job = submit.make_job(PLACES, variables=["NCCL_IB_DISABLE=1"])
    assert job.variables == {
        "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": "http://store:9000", "NCCL_IB_DISABLE": "1",
    }  # fmt: skip
    assert "hidden" not in str(job)


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
    assert refused(*PLACES, "--optimizer.rl=1") == ["--optimizer.rl: no such option; did you mean optimizer.lr?"]


def test_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    sent = {"pyproject.toml": 0, "cluster/loop.py": 100, "mine/data/words.txt": 20, "kept.py": 3}
    left = ("data/a", "runs/b", ".git/c", ".venv/d", "demo/e", ".env", "cluster/__pycache__/f", "notes.txt", "big/g")
    for name, size in {**sent, **dict.fromkeys(left, 7)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / ".gitignore").write_text("notes.txt\n")
    job = submit.make_job(PLACES, excludes=["/big"])
    assert submit.package_size(job) == (123 + len("notes.txt\n"), len(sent) + 1)
    assert job.environment["working_dir"] == str(tmp_path)

    assert submit.main([*PLACES, "--dry-run"]) == 0
    assert "python -m cluster train --storage=s3://bucket/runs" in capsys.readouterr().out


def test_of_an_installed_project_the_packages_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    for package in (*submit.PACKAGES, "torch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("# x\n")
    job = submit.make_job(PLACES)
    assert submit.package_size(job) == (4 * 4, 4)
    assert [Path(module).name for module in job.environment["py_modules"]] == list(submit.PACKAGES)
    assert "working_dir" not in job.environment


def test_a_folder_that_ray_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 1_000_000)
    for name, size in {"pyproject.toml": 0, "small": 10, "images": 4_000_000, "more": 2_000_000, "least": 1}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    (line,) = refused(*PLACES, "--address", "http://127.0.0.1:1")
    assert line == (
        f"{tmp_path}: 6 MB would be sent, Ray accepts up to 1 MB; leave out what the run does not need with --exclude "
        "(largest: images 4 MB, more 2 MB, small 0 MB)"
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "expected the cluster's dashboard, http://HOST:8265; got none"),
        ("head:6379", "expected the cluster's dashboard"),
        ("http://127.0.0.1:1", "nothing listens there (Connection refused)"),
        ("http://head:port", "nothing listens there"),
    ],
)
def test_an_address_without_a_cluster(address: str | None, said: str) -> None:
    with pytest.raises(UserError, match="--address") as error:
        submit.connect(address)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


class Client:
    """Stands for Ray's client of a cluster with these jobs."""

    def __init__(self, *jobs: Any) -> None:
        self.list_jobs: Callable[[], list[Any]] = lambda: list(jobs)

    def get_address(self) -> str:
        return "http://head:8265"


def job_there(command: str, *, ended: bool, **metadata: str) -> Any:
    status = SimpleNamespace(is_terminal=lambda: ended)
    return SimpleNamespace(submission_id="run-1", entrypoint=command, status=status, metadata=metadata or None)


def test_a_run_in_training_is_found_and_not_sent_again() -> None:
    job = submit.make_job([*PLACES, "--name", "monet"])
    find = lambda *jobs: submit.running_job(Client(*jobs), job)  # type: ignore[arg-type]  # noqa: E731
    assert find() is None
    assert find(job_there("other", ended=False), job_there(job.command, ended=True, **job.metadata)) is None
    assert find(job_there(job.command, ended=False, run="monet", storage="s3://bucket/others")) is None
    assert find(job_there(job.command, ended=False, **job.metadata, more="x")) == "run-1"
    with pytest.raises(
        UserError,
        match=r"in training with other options, as job run-1; .*ray job stop --address http://head:8265 run-1",
    ):
        find(job_there(job.command + " --seed=1", ended=False, **job.metadata))
