"""`python -m cluster copy` and `remove`: runs as objects."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from cluster import copy_run, remove, status
from cluster.__main__ import main
from cluster.ownership.owner import owned
from cluster.ranks.world import World
from cluster.records.run_state import outcome_recorded
from cluster.settings.config import RunConfig
from cluster.settings.preflight import claim, prepare
from cluster.training.loop import train
from data_shards.errors import UserError
from data_shards.storage.folder import File, RunFolder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run with checkpoints at 16 and 32 of 48 images, which was owned by somebody once."""
    root = tmp_path_factory.mktemp("run")
    config = tiny.config(tiny.pack_dataset(root), root / "runs", schedule={"images": 48}, checkpoint={"every": 16})
    prepared = prepare(config)
    claim(prepared)
    with owned(config.storage, config.name, take_over=False, say=print), outcome_recorded(prepared.folder):
        train(config, World())
    shutil.rmtree(root / "runs" / config.name / "checkpoint_000000000048")
    return config


@pytest.fixture
def run(stopped: RunConfig, tmp_path: Path) -> RunConfig:
    """A copy of it."""
    shutil.copytree(stopped.storage, tmp_path / "runs")
    return stopped.model_copy(update={"storage": str(tmp_path / "runs")})


def test_a_copy_is_continued_as_the_run_itself_would_be(run: RunConfig, tmp_path: Path) -> None:
    source, target = tmp_path / "runs" / run.name, tmp_path / "kept" / "another"
    assert main(["copy", str(source), str(target)]) == 0
    before = contents(source)
    assert contents(target) == {name: data for name, data in before.items() if not name.startswith("owner/")}
    ends = []
    for folder in (source, target):
        config = run.model_copy(update={"storage": str(folder.parent), "name": folder.name})
        claim(prepare(config))
        train(config, World())
        (end,) = folder.glob("checkpoint_000000000048*")
        ends.append({file.name: load_file(file) for file in sorted(end.glob("*.safetensors"))})
    assert ends[0].keys() == ends[1].keys()
    assert "generator_ab.safetensors" in ends[0]
    for name, tensors in ends[0].items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, ends[1][name][key])


def test_a_run_without_its_run_json_is_still_known_by_its_checkpoints(run: RunConfig, tmp_path: Path) -> None:
    about = tmp_path / "runs" / run.name / "run.json"
    about.unlink()
    other = run.model_copy(update={"seed": 7})
    with pytest.raises(UserError, match=r"holds another run; .*\n  seed: 0 there, 7 here"):
        prepare(other)
    claim(prepare(run))
    assert about.exists()


def test_a_copy_that_was_interrupted_goes_on_and_is_never_taken_for_a_whole_one(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "runs" / run.name, tmp_path / "kept"
    write, calls = RunFolder.write, []

    def stops(folder: RunFolder, name: str, content: bytes) -> File:
        calls.append(name)
        # The fourth file of the newest checkpoint.
        if len([name for name in calls if "checkpoint" in name]) == 4:
            raise KeyboardInterrupt
        return write(folder, name, content)

    monkeypatch.setattr(RunFolder, "write", stops)
    assert main(["copy", str(source), str(target)]) == 130
    assert capsys.readouterr().err == "interrupted: run the same command again to continue\n"
    assert "checkpoints  0 complete" in shown(target, capsys)
    monkeypatch.undo()
    assert main(["copy", str(source), str(target)]) == 0
    assert "checkpoints  2 complete, 0 not" in shown(target, capsys)
    # Nothing is left to do.
    assert copy_run.copy_run(RunFolder(str(source.parent), source.name), RunFolder(str(tmp_path), "kept")) == (0, 0)


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert status.main([str(folder)]) == 0
    return capsys.readouterr().out


def test_a_checkpoint_that_the_run_deletes_meanwhile_is_left_out(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, read = tmp_path / "runs" / run.name, RunFolder.read

    def deletes(folder: RunFolder, name: str) -> bytes | None:
        if name.startswith("checkpoint_000000000032"):
            shutil.rmtree(source / "checkpoint_000000000016", ignore_errors=True)
        return read(folder, name)

    monkeypatch.setattr(RunFolder, "read", deletes)
    assert main(["copy", str(source), str(tmp_path / "kept")]) == 0
    assert "checkpoint_000000000016: deleted by the run meanwhile; left out" in capsys.readouterr().err
    assert "checkpoints  1 complete, 0 not" in shown(tmp_path / "kept", capsys)


def test_what_is_there_is_not_copied_over(run: RunConfig, tmp_path: Path) -> None:
    source = tmp_path / "runs" / run.name
    with pytest.raises(UserError, match=r"the run itself"):
        copy_run.main([str(source), f"{source}/"])
    with pytest.raises(UserError, match=r"inside it"):
        copy_run.main([str(source), f"{source}/backup"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(UserError, match=r"exists and is not a copy of"):
        copy_run.main([str(source), str(tmp_path / "full")])
    with pytest.raises(UserError, match=r"not a run's folder"):
        copy_run.main([str(tmp_path / "full"), str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
    copy_run.main([str(source), str(tmp_path / "kept")])
    with owned(str(tmp_path), "kept", take_over=False, say=print):
        pass
    with pytest.raises(UserError, match=r"was trained there already"):
        copy_run.main([str(source), str(tmp_path / "kept")])


def test_a_run_is_deleted_when_the_user_agrees(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / run.name
    for answer in ("\n", "no\n", ""):
        monkeypatch.setattr(sys, "stdin", terminal(answer))
        assert main(["remove", str(folder)]) == 1
        assert len(contents(folder)) > 10
    assert "48 images seen" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", terminal("y\n"))
    assert main(["remove", str(folder)]) == 0
    assert list((tmp_path / "runs").iterdir()) == []


def terminal(text: str) -> io.StringIO:
    stdin = io.StringIO(text)
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    return stdin


def test_only_runs_that_nobody_trains_are_deleted(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other process looks every second.
    monkeypatch.setattr("cluster.ownership.owner.BEAT_S", 0.2)
    folder = tmp_path / "runs" / run.name
    with pytest.raises(UserError, match=r"--yes deletes it without asking"):
        remove.main([str(folder)])
    for other in (tmp_path / "runs", folder / "checkpoint_000000000016"):
        with pytest.raises(UserError, match=r"not a run's folder; nothing was deleted"):
            remove.main([str(other), "--yes"])
    with owned(run.storage, run.name, take_over=False, say=print):
        owner = subprocess.run(
            [sys.executable, "-m", "cluster", "remove", str(folder), "--yes"],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
        )  # fmt: skip
        assert owner.returncode == 2, owner.stderr
        assert "is still running there; wait for it, or stop it; nothing was deleted" in owner.stderr
    assert len(contents(folder)) > 10
    assert main(["remove", str(folder), "--yes"]) == 0
    assert not folder.exists()


def test_what_no_run_writes_is_not_deleted(run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / run.name
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")
    assert main(["remove", str(folder), "--yes"]) == 0
    assert contents(folder) == {"notes/a.txt": b"mine"}
    assert capsys.readouterr().out == f"{folder}: deleted, but for notes, which no run writes\n"


def test_a_link_to_a_run_is_not_deleted_and_no_way_into_the_run_for_a_copy(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, link = tmp_path / "runs" / run.name, tmp_path / "link"
    link.symlink_to(folder)
    before = contents(folder)
    assert main(["remove", "--yes", f"{link}/"]) == 2
    assert f"{link}: a link to {folder}; nothing was deleted. Give that folder" in capsys.readouterr().err
    for source, target in (folder, link / "x"), (link, folder / "x"):
        assert main(["copy", str(source), str(target)]) == 2
        assert "is the run itself or inside it" in capsys.readouterr().err
    assert contents(folder) == before


def test_an_interrupted_removal_is_repeated(run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, delete, calls = tmp_path / "runs" / run.name, remove.delete_files, []

    def stops(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        delete(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(remove, "delete_files", stops)
    assert main(["remove", str(folder), "--yes"]) == 130
    monkeypatch.undo()
    assert main(["remove", str(folder), "--yes"]) == 0
    assert not folder.exists()
