"""Secrets stay where they are: not in a run's folder, not in a message, not in what Ray is told."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from cluster.settings.config import RunConfig, has_credentials
from cluster.settings.options import parse_options
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from tuning.settings.options import parse_sweep

ROOT = Path(__file__).parents[4]
SECRET = "wJalrXUtnFEMI/K7MDENG"
WITH_SECRET = f"s3://AKIDEXAMPLE:{SECRET}@bucket/runs?region=us-east-1"
DATASET = ("--data.uri", "/data")


def lines_of(error: pytest.ExceptionInfo[Exception]) -> list[str]:
    assert SECRET not in str(error.value)
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("uri", "has"),
    [
        (WITH_SECRET, True),
        ("abfs://:hidden@account/container", True),
        ("abfs://account/runs?client_secret=hidden&tenant_id=x", True),
        ("s3://bucket/runs?x=1&sas_token=hidden", True),
        ("abfs://container@account.dfs.core.windows.net/runs?sv=1&sig=hidden", True),
        ("http://user:hidden@store:9000", True),
        ("gs://anonymous@bucket/runs", False),
        ("abfs://container@account.dfs.core.windows.net/runs", False),
        ("hdfs://namenode:8020/runs/a@b", False),
        ("http://store:9000", False),
        ("s3://bucket/a@b/runs?endpoint_override=store:9000&scheme=http&region=eu", False),
        ("/shared/runs@home:1", False),
        ("runs", False),
    ],
)
def test_uris_with_credentials(uri: str, has: bool) -> None:
    assert has_credentials(uri) is has


def test_a_run_does_not_take_them_from_a_file_or_an_option(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"storage": WITH_SECRET, "data": {"uri": WITH_SECRET}, "seed": -1}))
    for arguments in (["--config", str(file)], ["--storage", WITH_SECRET, "--data.uri", WITH_SECRET, "--seed=-1"]):
        with pytest.raises(UserError) as error:
            parse_options(arguments)
        storage, seed, data = lines_of(error)
        assert storage.startswith("storage: has credentials in its URI, which would be stored with the run")
        assert "AWS_SECRET_ACCESS_KEY" in storage
        assert data.startswith("data.uri: has credentials")
        assert seed.startswith("seed: ")


def test_neither_does_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tiny.settings("/data", tmp_path)))
    with pytest.raises(UserError) as error:
        parse_sweep(["--train", str(file), "--storage", WITH_SECRET])
    assert "storage: has credentials" in lines_of(error)[0]


@pytest.mark.parametrize("uri", [WITH_SECRET, WITH_SECRET.replace("s3", "nope"), WITH_SECRET.replace("?", "?nope=1&")])
def test_a_folder_that_is_opened_with_them_does_not_tell_them(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    try:
        label = RunFolder(uri, "run").label
    except UserError as error:
        label = str(error)
    assert "bucket/runs" in label
    assert SECRET not in label


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "cluster", "train", *DATASET, "--storage", WITH_SECRET),
        ("-m", "cluster", "submit", *DATASET, "--storage", WITH_SECRET, "--env", f"STORE_KEY={SECRET}"),
        (
            "-m",
            "nla_cyclegan",
            "translate",
            "--weights",
            WITH_SECRET.replace("s3", "nope"),
            "--direction",
            "B2A",
            "x.png",
        ),
        ("-m", "data_shards", "inspect", WITH_SECRET.replace("s3", "nope")),
    ],
    ids=lambda command: " ".join(command[1:3]),
)
def test_commands_do_not_repeat_them(command: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_run_keeps_those_of_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from cluster import train

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    config = tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "runs", observe={"tensorboard": True})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    train.main(["--config", str(tmp_path / "run.yaml"), "--local"])
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    files = {file.name: file.read_bytes() for file in (tmp_path / "runs").rglob("*") if file.is_file()}
    assert {"run.json", "metrics.jsonl"} <= files.keys()
    assert [name for name, content in files.items() if SECRET.encode() in content] == []


def test_a_configuration_made_in_code_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="storage"):
        RunConfig.model_validate(tiny.settings("/data", tmp_path) | {"storage": WITH_SECRET})
