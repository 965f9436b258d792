"""What of this checkout a job takes along."""

from pathlib import Path

import pytest

from cluster import submit
from cluster.jobs.job import package_size
from cluster.machines.session import PACKAGES
from data_shards.errors import UserError

PLACES = ("--storage", "s3://bucket/runs", "--data.uri", "s3://bucket/data")


def move_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("job", "submission"):
        monkeypatch.setattr(f"cluster.jobs.{module}.ROOT", folder)


def test_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    move_to(tmp_path, monkeypatch)
    sent = {"pyproject.toml": 0, "cluster/loop.py": 100, "mine/data/words.txt": 20, "kept.py": 3}
    left = ("data/a", "runs/b", ".git/c", ".venv/d", "demo/e", ".env", "cluster/__pycache__/f", "notes.txt", "big/g")
    for name, size in {**sent, **dict.fromkeys(left, 7)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / ".gitignore").write_text("notes.txt\n")
    job = submit.make_job(PLACES).with_environment(["/big"])
    assert package_size(job) == (123 + len("notes.txt\n"), len(sent) + 1)
    assert job.environment["working_dir"] == str(tmp_path)

    assert submit.main([*PLACES, "--dry-run"]) == 0
    assert "python -m cluster train --storage=s3://bucket/runs" in capsys.readouterr().out


def test_of_an_installed_project_the_packages_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)
    for package in (*PACKAGES, "torch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("# x\n")
    job = submit.make_job(PLACES)
    assert package_size(job) == (4 * 4, 4)
    assert [Path(module).name for module in job.environment["py_modules"]] == list(PACKAGES)
    assert "working_dir" not in job.environment


def test_modules_that_a_pattern_matches_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    move_to(tmp_path, monkeypatch)
    for name in ("pyproject.toml", "cluster/loop.py", "nla_cyclegan/model/config.py", "nla_cyclegan/model/blocks.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    package_size(submit.make_job(PLACES))
    assert capsys.readouterr().err == ""
    (tmp_path / ".gitignore").write_text("model/\n")
    package_size(submit.make_job(PLACES))
    said = "warning: 2 modules of the project will not be sent, such as nla_cyclegan/model/blocks.py: "
    assert capsys.readouterr().err.startswith(said)


def test_a_folder_that_ray_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path, monkeypatch)
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 1_000_000)
    for name, size in {"pyproject.toml": 0, "small": 10, "images": 4_000_000, "more": 2_000_000, "least": 1}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    with pytest.raises(UserError) as error:
        submit.main([*PLACES, "--address", "http://127.0.0.1:1"])
    assert str(error.value) == (
        f"{tmp_path}: 6 MB would be sent, Ray accepts up to 1 MB; leave out what is not needed there with --exclude "
        "(largest: images 4 MB, more 2 MB, small 0 MB)"
    )
