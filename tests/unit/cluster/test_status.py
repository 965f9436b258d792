"""What `python -m cluster status` tells of a run, from its folder alone."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from cluster import status
from cluster.inspection import report, snapshot
from cluster.inspection.health import Health, health, pace
from cluster.inspection.snapshot import RunSnapshot, take_snapshot
from cluster.ownership.attempt import ENDED
from cluster.ownership.records import Records, own_record
from cluster.ranks.world import World
from cluster.records import events
from cluster.records.metrics_file import Record
from cluster.records.run_state import outcome_recorded, record_start
from cluster.settings.preflight import claim, prepare
from cluster.training.loop import train
from data_shards.errors import NonFiniteLossError, StorageAwayError, UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint_names import images_of
from nla_cyclegan.weights.references import select

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a finished run, `tiny`, of 48 images."""
    root = tmp_path_factory.mktemp("status")
    config = tiny.config(tiny.pack_dataset(root), root / "runs", validation={"every": 16, "images": 4})
    prepared = prepare(config)
    claim(prepared)
    with outcome_recorded(prepared.folder):
        train(prepared.config, World())
    return root / "runs"


@pytest.fixture
def copy(storage: Path, tmp_path: Path) -> RunFolder:
    """A copy of that run, to be harmed."""
    for file in storage.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(storage)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return RunFolder(str(tmp_path), "tiny")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert status.main(arguments) == 0
    return capsys.readouterr().out


def records(*times: float) -> list[dict[str, Any]]:
    return [{"images": 100 * n, "images_per_s": 10.0, "time": t} for n, t in enumerate(times, start=1)]


def of(records: list[dict[str, Any]], state: str | None = None, told_at: float = 0.0) -> RunSnapshot:
    told = {"state": state, "time": told_at, "reason": "too hot"} if state else {}
    return RunSnapshot("run", {"clock": {"total": 10_000, "epoch": 1_000}}, told, records, [])


def test_a_run_for_a_person(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, str(storage / "tiny"))
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if not line.startswith(" "))
    assert lines["run"] == str(storage / "tiny")
    assert lines["model"].startswith("2 blocks (non-local: 1), 2 channels; nadam, lr 0.0002, batch 4, fp32")
    assert lines["health"].startswith("finished (")
    assert lines["progress"] == "48 images of 48 (100.0%), epoch 4.00 of 4"
    assert "left" not in lines["rate"]
    assert "data " in lines["waits"]
    assert "checkpoint " in lines["waits"]
    assert lines["evaluated"].endswith("; best " + lines["evaluated"].rpartition("; best ")[2])
    assert lines["checkpoints"] == "3 complete, 0 not"
    stored = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    assert stored == [f"checkpoint_{images:012d}" for images in (48, 32, 16)]
    assert text.count(", the best") == 1


def test_without_its_run_json_a_run_is_what_its_checkpoints_say(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long ago it was both times.
    monkeypatch.setattr(status, "time", SimpleNamespace(time=lambda: NOW))
    whole = shown(capsys, copy.path)
    Path(copy.path, "run.json").unlink()
    assert shown(capsys, copy.path) == whole


def test_the_newest_events_are_shown_in_order(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with events.opened(copy, "1aaaa", "driver"):
        for number in range(report.EVENTS_SHOWN):
            events.add("restart", f"{number}")
    with events.opened(copy, "2bbbb", "rank-0"):
        events.add("saved", "checkpoint_000000000048")
    text = shown(capsys, copy.path)
    assert "events       the newest 12 of 13\n" in text
    rows = [line.split()[2:] for line in text.partition("events  ")[2].splitlines()[1:]]
    assert rows == [*(["restart", f"{number}"] for number in range(1, 12)), ["saved", "checkpoint_000000000048"]]
    (found,) = json.loads(shown(capsys, copy.path, "--json"))
    assert [event["kind"] for event in found["events"]] == ["restart"] * 12 + ["saved"]


def test_a_run_for_a_machine(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(shown(capsys, str(storage / "tiny"), "--json"))
    assert (found["images"], found["total"], found["epoch"], found["health"]["state"]) == (48, 48, 4.0, "finished")
    scores = {each["name"]: each["score"] for each in found["checkpoints"]}
    assert found["best"] == min(scores, key=lambda name: scores[name])
    assert found["config"]["optimizer"]["lr"] == 2e-4
    assert found["latest"]["score"] == scores["checkpoint_000000000048"]
    assert {each["score_definition"] for each in found["checkpoints"]} == {"swd+lab 1"}
    assert found["warnings"] == []


def test_a_reader_that_has_seen_enough_is_no_error(storage: Path) -> None:
    command = [sys.executable, "-m", "cluster", "status", str(storage)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_run_is_watched_to_its_end(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["training", "training", "finished"])
    monkeypatch.setattr(status, "health", lambda run, now: Health(next(states), now))
    waits: list[float] = []
    monkeypatch.setattr(status.time, "sleep", waits.append)
    monkeypatch.setattr(status, "text_of", lambda run, now: f"{run.images} images")
    assert status.main([f"{copy.label}", "--watch", "0.5"]) == 0
    assert capsys.readouterr().out.split("\n") == ["48 images"] * 3 + [""]
    assert waits == [0.5, 0.5]


def test_a_watch_outlasts_a_store_that_is_away(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([("48 images", False), StorageAwayError("cannot list x"), ("49 images", True)])

    def look(options: object) -> tuple[str, bool]:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(status, "_look", look)
    assert status.main([copy.label, "--watch", "0.01"]) == 0
    assert capsys.readouterr() == ("48 images\n49 images\n", "warning: cannot list x; trying again\n")


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "soon"])
def test_a_wrong_interval_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        status.main(["runs/tiny", "--watch", wrong])
    assert "--watch" in capsys.readouterr().err


def test_a_table_reads_no_event_log(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with events.opened(copy, "1aaaa", "driver"):
        events.add("start", "at 0 images")
    read: list[bytes] = []
    monkeypatch.setattr(snapshot, "parse_events", lambda content: read.append(content) or [])
    shown(capsys, str(Path(copy.path).parent))
    assert read == []
    shown(capsys, copy.path)
    assert len(read) == 1


def test_a_storage_with_runs_is_a_table(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    record_start(RunFolder(copy.root, "young"))
    RunFolder(copy.root, "young").write_json("run.json", {"clock": {"total": 9, "epoch": 3}})
    RunFolder(copy.root, "no-run").write("notes.txt", b"hello")
    Path(copy.root, "notes.txt").write_text("hello")
    head, *rows = shown(capsys, copy.root).splitlines()
    assert head.split()[:4] == ["run", "health", "since", "images"]
    assert [row.split()[:2] for row in rows] == [["tiny", "finished"], ["young", "starting"]]
    assert rows[0].split()[-1] == "3"


def test_checkpoints_that_cannot_be_resumed_from_are_named(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder, newest = Path(copy.path), "checkpoint_000000000048"
    (folder / newest / "commit-of-00001.json").unlink()
    short = folder / "checkpoint_000000000032" / "generator_ab.safetensors"
    short.write_bytes(short.read_bytes()[:-1])
    flipped = folder / "checkpoint_000000000016" / "generator_ab.safetensors"
    content = flipped.read_bytes()
    flipped.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    text = shown(capsys, copy.path)
    assert [line for line in text.splitlines() if line.startswith("warning")] == [
        f"warning: {newest} is not complete: it is being written, or a failure cut it off",
        f"warning: checkpoint_000000000032: generator_ab.safetensors has {len(content) - 1:,} bytes, "
        f"{len(content):,} were written",
    ]
    assert "1 complete, 2 not" in text
    (health,) = [line for line in text.splitlines() if line.startswith("health ")]
    assert "finished (" in health
    assert "its last checkpoint is missing or damaged" in health
    flips = shown(capsys, copy.path, "--verify").count("generator_ab.safetensors is damaged: its SHA-256 is not")
    assert flips == 1


def test_a_run_that_may_not_be_listed_hides_no_other(
    copy: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(copy.path).parent / "private").mkdir()
    names = RunFolder.names

    def refused(folder: RunFolder) -> list[str]:
        if folder.name == "private":
            raise UserError("cannot list private: Permission denied")
        return names(folder)

    monkeypatch.setattr(RunFolder, "names", refused)
    assert status.main([str(Path(copy.path).parent)]) == 0
    out, err = capsys.readouterr()
    assert "tiny" in out
    assert "warning: cannot list private: Permission denied; left out" in err


def test_damaged_json_of_checkpoints_does_not_hide_the_run(copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    share = "checkpoint_000000000048/commit-of-00001.json"
    copy.write(share, b"{")
    about = Path(copy.path) / "checkpoint_000000000032" / "run.json"
    about.write_bytes(b"}" + about.read_bytes()[1:])
    text = shown(capsys, copy.path)
    assert f"warning: checkpoint_000000000048: {copy.path}/{share}: damaged (" in text
    assert "2 complete, 1 not" in text


def test_a_run_of_a_later_version_and_numbers_that_json_lacks_are_shown(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    about = copy.read_json("run.json")
    about["config"]["model"]["generator"]["heads"] = 4
    copy.write_json("run.json", about)
    copy.write("metrics.jsonl", (copy.read("metrics.jsonl") or b"") + b'{"images": 48, "generator_total": NaN}\n')
    assert "model        not one of this version (generator.heads: Extra inputs" in shown(capsys, copy.path)
    (found,) = json.loads(shown(capsys, copy.path, "--json"), parse_constant=pytest.fail)
    assert found["latest"]["generator_total"] is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "no run at {}: nothing is there; give a run's folder"),
        ("other", "no run at {}: neither it nor a folder in it has a run's files; give a run's folder"),
        ("a-file", "cannot list {}: "),
    ],
)
def test_a_wrong_uri_is_one_clear_line(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("hello")
    (tmp_path / "other" / "folder").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        status.main([str(tmp_path / name)])
    assert str(caught.value).startswith(said.format(tmp_path / name))
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_is_healthy_as_long_as_it_keeps_its_rhythm() -> None:
    slow, quick = records(NOW - 900, NOW - 600, NOW - 300), records(NOW - 302, NOW - 301, NOW - 300)
    assert health(of(slow), NOW).state == "training"
    stalled = health(of(quick), NOW)
    assert (stalled.state, stalled.since) == ("stalled", NOW - 300)
    # The clock of the machine that writes is behind.
    assert health(replace(of(quick), written=NOW - 5), NOW) == Health("training", NOW - 5)
    assert health(replace(of(quick), written=NOW + 4000), NOW + 4000).state == "stalled"
    assert health(of([]), NOW).state == "empty"
    assert health(of([], "training", NOW - 30), NOW) == Health("starting", NOW - 30)


def test_a_run_without_records_whose_driver_is_alive_waits(copy: RunFolder) -> None:
    owner = Records(copy)
    owner.write("3dead", own_record())
    beat = take_snapshot(copy).beat
    assert beat is not None
    assert abs(beat - time.time()) < 30
    quiet = replace(of(records(NOW - 900, NOW - 899, NOW - 898)), beat=NOW - 5)
    waiting = health(quiet, NOW)
    assert (waiting.state, waiting.since) == ("waiting", NOW - 898)
    assert health(replace(quiet, beat=NOW - 500), NOW).state == "stalled"
    owner.mark("3dead", ENDED)
    assert take_snapshot(copy).beat is None


@pytest.mark.parametrize("state", ["stopped", "diverged", "failed"])
def test_what_a_run_said_at_its_end_holds_until_it_goes_on(state: str) -> None:
    before = records(NOW - 30, NOW - 20)
    ended = health(of(before, state, NOW - 10), NOW)
    assert (ended.state, ended.since, ended.reason) == (state, NOW - 10, "too hot")
    # The driver's clock may be behind that of rank 0's machine, but not as far as a later training is.
    assert health(of([*before, *records(NOW - 5)], state, NOW - 200), NOW).state == state
    assert health(of([*before, *records(NOW - 5)], state, NOW - 1000), NOW).state == "training"
    # It was started again, and has written nothing yet.
    assert health(of(before, "training", NOW - 1), NOW).state == "training"


def test_the_pace_is_that_of_whole_intervals() -> None:
    found = pace([
        {"images": 100, "images_per_s": 10.0, "data_wait": 0.5},
        {"images": 100, "swd": 3.0},
        {"images": 200, "images_per_s": 30.0, "data_wait": 0.1},
    ])  # fmt: skip
    assert found is not None
    # 200 images in 13.3 s, of which 5.3 s.
    assert found.images_per_s == pytest.approx(15)
    assert found.waits["data"] == pytest.approx(0.4)
    assert pace([{"images": 100, "swd": 3.0}]) is None


def test_of_a_group_the_slowest_ranks_wait_counts_and_it_is_named() -> None:
    def step(images: int, most: float, rank: int) -> Record:
        record = {"images": images, "images_per_s": 10.0, "data_wait": 0.01, "checkpoint_wait": 0.0}
        return record | {
            "data_wait_max": most,
            "data_wait_rank": rank,
            "checkpoint_wait_max": 0.0,
            "checkpoint_wait_rank": 0,
        }

    found = pace([step(100, 0.3, 3), step(200, 0.2, 1), step(300, 0.4, 3)])
    assert found is not None
    assert found.waits["data"] == pytest.approx(0.3)
    assert report.waits_text(found) == "data 30.0% (rank 3), checkpoint 0.0%, validation 0.0%, preview 0.0% of the time"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "stopped", None),
        (NonFiniteLossError("the loss is not finite"), "diverged", "the loss is not finite"),
        (RuntimeError("one\ntwo"), "failed", "one"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
    ],
)
def test_how_a_run_ended_is_written_down(error: BaseException, state: str, reason: str | None, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    record_start(folder)
    with pytest.raises(type(error)), outcome_recorded(folder):
        raise error
    told = folder.read_json("state.json")
    assert (told["state"], told["reason"]) == (state, reason)
    assert abs(told["time"] - time.time()) < 60


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    with pytest.raises(UserError), outcome_recorded(folder):
        raise UserError("not so many workers")
    assert not Path(folder.path).exists()


def test_records_cut_off_by_a_crash_do_no_harm_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(str(tmp_path), "run")
    folder.write("metrics.jsonl", b'{"images": 4}\nnot json\n{"images": 8}\n{"ima')
    assert [record["images"] for record in take_snapshot(folder).records] == [4, 8]
    said = f"{folder.label}/metrics.jsonl: line 2 is not a record and is skipped: what it recorded is missing"
    assert shown(capsys, folder.path).splitlines()[-1] == f"warning: {said}"
    (found,) = json.loads(shown(capsys, folder.path, "--json"))
    assert found["warnings"] == [said]
    assert status.main([str(tmp_path)]) == 0
    table = capsys.readouterr()
    assert said not in table.out
    assert table.err == f"warning: {said}\n"


def evaluation(images: int, score: float, **fields: Any) -> Record:
    return {"images": images, "swd": 100 * score, "score": score, "score_version": 1, **fields}


@pytest.mark.parametrize(
    "other",
    [
        {"score_images": 64},
        {"score_version": 2},
        {"inputs_kid_A2B": 3.0, "inputs_kid_B2A": 3.0},
        {"inputs_swd_A2B": 70.0},
    ],
)
def test_the_best_is_of_scores_that_compare_with_the_newest(other: dict[str, Any]) -> None:
    now = {"score_images": 4, "inputs_swd_A2B": 80.0}
    run = of([evaluation(8, 0.3, **now | other), evaluation(16, 0.5, **now), evaluation(24, math.nan, **now)])
    assert [record["images"] for record in run.evaluated] == [16, 24]
    assert report.evaluated_text(run.evaluated).endswith(
        "score nan (score_A2B nan, score_B2A nan) at 24 images; best 0.500 at 16"
    )


def test_the_best_of_a_run_that_goes_on_with_other_held_out_images_is_that_of_the_checkpoints(
    copy: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The records of before there was a field for it say nothing of their number; checkpoints do."""
    lines = [{"generator_total": 1.0, **evaluation(16 * n, 0.1 * n)} for n in (1, 2, 3)]
    copy.write("metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    for images, used in ((16, 64), (32, 4), (48, 4)):
        name = f"checkpoint_{images:012d}"
        about = copy.read_json(f"{name}/run.json", "")
        about["config"]["validation"]["images"] = used
        copy.write_json(f"{name}/run.json", about | {"score": images / 160})
    text = shown(capsys, copy.path)
    assert "best 0.200 at 32" in text
    assert images_of(select(copy.location, "best").name) == 32
