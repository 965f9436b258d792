"""Training straight from two folders of images."""

import fcntl
import os
import threading
from pathlib import Path
from shlex import quote

import pytest
import tiny
import yaml
from image_folders import make_folder, picture

from cluster import submit, train
from cluster.settings.config import RunConfig
from cluster.settings.folders import with_dataset
from cluster.settings.options import parse_options
from data_shards import open_dataset
from data_shards.__main__ import main as data_shards
from data_shards.errors import UserError
from data_shards.packing import pack as packing
from tuning import submit as tuning_submit
from tuning.settings.options import parse_sweep

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "images", {"monets": 3, "photos": 4}, width=24, height=20)


def options(folders: Path, **changes: object) -> list[str]:
    """Of a tiny run of these folders."""
    settings = tiny.settings("-", folders.parent / "runs", **changes)
    settings["data"]["global_batch"] = 2
    del settings["data"]["uri"]
    file = folders.parent / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    return ["--config", str(file), "--data.a", str(folders / "monets"), "--data.b", str(folders / "photos")]


def config(folders: Path) -> RunConfig:
    return parse_options(options(folders)).config


def dataset_of(folders: Path, address: str | None = None) -> str:
    chosen = config(folders)
    return with_dataset(chosen, chosen.storage, address=address).data.uri


def test_folders_are_packed_once_as_pack_would(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = dataset_of(folders)
    assert Path(uri).parent == tmp_path / "cache" / "data_shards" / "packed"
    a, b = folders / "monets", folders / "photos"
    said = f"packed, in {uri}: trainA 2, trainB 3, testA 1, testB 1 images; to pack by hand: python -m data_shards pack --a {quote(str(a))} --b {quote(str(b))} DEST"
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", said)
    assert data_shards(["pack", "--a", str(a), "--b", str(b), str(tmp_path / "by-hand")]) == 0
    assert open_dataset(uri).fingerprint == open_dataset(tmp_path / "by-hand").fingerprint

    capsys.readouterr()
    assert dataset_of(folders) == uri
    assert capsys.readouterr().err.splitlines() == [said.replace("packed,", "packed before,")]


@pytest.mark.slow
def test_changed_folders_are_packed_anew(folders: Path) -> None:
    seen = [dataset_of(folders)]
    picture(90, 24, 20).save(folders / "monets" / "new.jpg")
    seen.append(dataset_of(folders))
    # Of the same name and size.
    os.utime(folders / "monets" / "new.jpg", ns=(1, 1))
    seen.append(dataset_of(folders))
    (folders / "photos" / "0000.jpg").unlink()
    seen.append(dataset_of(folders))
    assert len(set(seen)) == 4
    same = [open_dataset(uri).fingerprint for uri in seen]
    assert (same[1] == same[2], len(set(same))) == (True, 3)


def test_what_is_not_whole_is_never_used(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*anything: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(packing, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            dataset_of(folders)
    uri = Path(dataset_of(folders))
    fingerprint = open_dataset(uri).fingerprint
    # As where a cache is cleared in part.
    (uri / "trainB-000000.tar").unlink()
    assert dataset_of(folders) == str(uri)
    assert open_dataset(uri).fingerprint == fingerprint
    assert (uri / "trainB-000000.tar").exists()


@pytest.mark.slow
def test_one_process_packs_and_others_wait(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = dataset_of(folders)
    with Path(f"{uri}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=dataset_of, args=(folders,))
        other.start()
        other.join(0.5)
        assert other.is_alive()
    other.join(60)
    assert not other.is_alive()
    assert "another process packs these images" in capsys.readouterr().err


def test_a_clusters_machines_read_from_the_runs_storage(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = folders.parent / "runs"
    assert Path(dataset_of(folders, "head:6379")).parent == storage / ".datasets"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert Path(dataset_of(folders)).parent == storage / ".datasets"
    chosen = config(folders)
    for flags in ({"local": True}, {"dry_run": True}):
        uri = with_dataset(chosen, chosen.storage, address=None, **flags).data.uri
        assert "cache" in Path(uri).parts


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_folders_alone(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*options(folders, schedule={"images": 8}), "--dry-run", "--local"])
    assert "trainA 2, trainB 3" in capsys.readouterr().out
    assert not (folders.parent / "runs").exists()
    train.main([*options(folders, schedule={"images": 8}), "--local"])
    # The same images, with new times; and the dataset by its own name.
    os.utime(folders / "monets" / "0001.jpg", ns=(1, 1))
    uri = dataset_of(folders)
    for again in (options(folders, schedule={"images": 8}), ["--data.uri", uri]):
        capsys.readouterr()
        train.main([*options(folders, schedule={"images": 8})[:2], *again, "--local"])
        assert "tiny is finished: 8 images seen" in capsys.readouterr().out
    picture(90, 24, 20).save(folders / "monets" / "new.jpg")
    with pytest.raises(UserError, match=r"holds another run(?s:.)*other images than before"):
        train.main([*options(folders, schedule={"images": 8}), "--local"])


def problems(*arguments: str) -> list[str]:
    with pytest.raises(UserError) as error:
        parse_options(arguments)
    return str(error.value).splitlines()


def test_a_run_has_one_dataset() -> None:
    assert problems("--data.a", "x") == ["data.b: required; give it as --data.b or in the file"]
    assert problems("--data.b", "x") == [
        "data.b: needs data.a, the images of the other domain; got 'x' on the command line"
    ]
    assert problems("--data.a", "x", "--data.b", "y", "--data.uri", "z") == [
        "data.uri: already names a dataset; give it, or data.a and data.b; got 'z' on the command line"
    ]


def test_a_dataset_on_the_command_line_replaces_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: {uri: packed}")
    data = parse_options(["--config", str(file), "--data.a", "x", "--data.b", "y"]).config.data
    assert (data.a, data.b, data.uri) == ("x", "y", "")
    file.write_text("data: {a: x, b: y}")
    data = parse_options(["--config", str(file), "--data.uri", "packed"]).config.data
    assert (data.a, data.b, data.uri) == (None, None, "packed")
    data = parse_options(["--config", str(file), "--data.b", "z"]).config.data
    assert (data.a, data.b) == ("x", "z")
    # From where its file names others.
    monkeypatch.chdir(ROOT)
    sweep = ["--config", "tuning/configs/demo.yaml", "--data.a", "x", "--data.b", "y"]
    assert parse_sweep(sweep).base.data.uri == ""


@pytest.mark.parametrize("make_job", [submit.make_job, tuning_submit.make_job])
def test_folders_of_this_machine_are_not_sent(make_job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    places = ["--storage", "s3://bucket/runs"]
    if make_job is tuning_submit.make_job:
        places += ["--preset", "placement"]
    with pytest.raises(UserError) as error:
        make_job([*places, "--data.a", "/home/me/monets", "--data.b", "s3://bucket/photos"])
    (line,) = str(error.value).splitlines()
    assert line.startswith("data.a: /home/me/monets is a folder of this machine")
    assert "pack it into a bucket" in line
    job = make_job([*places, "--data.a", "s3://bucket/monets", "--data.b", "s3://bucket/photos"])
    assert "s3://bucket/monets" in job.command


def test_what_cannot_be_packed_is_one_line(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (folders / "photos").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"^data\.b .*photos: no image in it$"):
        dataset_of(folders)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    relative = RunConfig.model_validate({"data": {"a": "x", "b": "s3://bucket/y"}, "storage": "s3://bucket"})
    with pytest.raises(UserError, match=r"^data\.a: 'x' is relative"):
        with_dataset(relative, relative.storage, address=None)
