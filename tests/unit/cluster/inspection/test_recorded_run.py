import json

import pytest
import torch

from cluster.inspection.recorded_run import differences, read_run
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records import observe
from cluster.records.config import ObserveConfig
from cluster.records.metrics_file import merge_records, read_records
from cluster.records.observe import MetricsLog
from cluster.records.sinks import MetricsFiles
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder

CONFIG = {
    "name": "one",
    "seed": 3,
    "data": {"uri": "somewhere", "crop_size": 64, "prefetch": 2},
    "model": {"generator": {"nonlocal_blocks": [1], "num_blocks": 3}},
    "optimizer": {"name": "nadam", "lr": 2e-4},
    "scaling": {"workers": 2},
}


def write(folder, lines, config=None):
    folder.mkdir(exist_ok=True)
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    if config is not None:
        (folder / "run.json").write_text(json.dumps({"config": config}))
    return folder


def losses(*images):
    return [{"images": each, "generator_total": float(each)} for each in images]


def test_a_run_that_cluster_wrote_is_read_back(tmp_path):
    folder = RunFolder(str(tmp_path), "run")
    files = MetricsFiles(ObserveConfig(every=4, tensorboard=False), tmp_path / "run", folder)
    log = MetricsLog(ObserveConfig(every=4), Clock(batch=2, epoch=10, total=12), World.current(), [files])
    with log.open(0):
        for images in range(2, 13, 2):
            log.maybe_write(images, {"generator_total": torch.tensor(float(images))}, lr=1e-3)
    history = read_run(str(tmp_path / "run"))
    x, y = history.series("generator_total")
    assert x.tolist() == [4, 8, 12]
    assert y.tolist() == [3, 7, 11]
    assert (history.location, history.images, history.settings) == (str(tmp_path / "run"), 12, {})
    assert [len(axis) for axis in history.series("identity_a")] == [0, 0]


def test_a_slow_first_step_says_when_losses_come(monkeypatch):
    monkeypatch.setattr(observe, "SLOW_STEP_S", 0.0)
    said = []
    log = MetricsLog(ObserveConfig(every=4), Clock(batch=2, epoch=10, total=12), World.current(), say=said.append)
    with log.open(0):
        for images in range(2, 13, 2):
            log.maybe_write(images, {"generator_total": torch.tensor(1.0)}, lr=1e-3)
    assert said == ["first step after 0 s; losses come every 4 images (observe.every)"]


def test_a_uri_is_read_like_a_path(tmp_path):
    write(tmp_path / "run", losses(10, 20), CONFIG)
    assert read_run((tmp_path / "run").as_uri()) == read_run(str(tmp_path / "run"))


def test_a_resumed_run_forgets_what_did_not_happen(tmp_path):
    records = [
        *losses(10, 20, 30, 40),
        {"images": 40, "swd_B2A": 5.0},
        # Resumed from 20, with another distance between records.
        {"images": 25, "generator_total": 1.0},
        {"images": 45, "generator_total": 2.0},
    ]
    write(tmp_path / "run", records)
    kept = [*losses(10, 20), *records[-2:]]
    assert read_records(RunFolder(str(tmp_path), "run")) == kept
    assert read_run(str(tmp_path / "run")).records == kept


def test_the_same_images_again_are_the_later_ones_and_parts_of_a_record_belong_together():
    assert merge_records([*losses(10, 20), {"images": 20, "generator_total": 7.0}]) == [
        *losses(10),
        {"images": 20, "generator_total": 7.0},
    ]
    assert merge_records([*losses(10), {"images": 10, "swd_A2B": 4.0}]) == [
        {"images": 10, "generator_total": 10.0, "swd_A2B": 4.0}
    ]


def test_a_line_on_its_way_is_left_out_and_a_damaged_one_reported(tmp_path, capsys):
    write(tmp_path / "run", [*losses(10), '{"imag\n', *losses(20), '{"images": 3'])
    assert read_run(str(tmp_path / "run")).series("generator_total")[0].tolist() == [10, 20]
    warning = capsys.readouterr().err
    assert "metrics.jsonl: line 2 is not a record and is skipped" in warning
    assert warning.count("\n") == 1


def test_damaged_lines_are_counted_in_one_warning(tmp_path, capsys):
    torn = '{"images": 30, "generator_to' + json.dumps(losses(40)[0]) + "\n"
    write(tmp_path / "run", [*losses(10), torn, "\n", "\0\0\0\n", *losses(50), '{"images": 60}x\n'])
    said = []
    assert [record["images"] for record in read_run(str(tmp_path / "run"), said.append).records] == [10, 50]
    where = tmp_path / "run" / "metrics.jsonl"
    assert said == [
        f"{where}: 3 of its 6 lines are not records and are skipped, the first is line 2: what they recorded is missing"
    ]
    # What is read later is as sound as what was read: a resumed run writes the file again without them.
    files = MetricsFiles(ObserveConfig(tensorboard=False), where.parent, RunFolder(str(tmp_path), "run"))
    files.start(50)
    files.close()
    assert said[0] in capsys.readouterr().err
    assert len(where.read_text().splitlines()) == 2


def test_settings_are_what_the_run_learns_not_where_it_is_kept(tmp_path):
    settings = read_run(str(write(tmp_path / "run", losses(1), CONFIG))).settings
    assert settings == {
        "seed": 3,
        "data.crop_size": 64,
        # What a run of before that field did.
        "data.fit": "stretch",
        "model.generator.nonlocal_blocks": [1],
        "model.generator.num_blocks": 3,
        "optimizer.name": "nadam",
        "optimizer.lr": 2e-4,
    }
    other = settings | {"optimizer.name": "adam", "optimizer.eps": 1e-8}
    assert differences(settings, settings) == []
    assert differences(settings, other) == ["optimizer.name", "optimizer.eps"]
    assert differences(settings, {}) == []


def nothing(folder):
    return folder


def a_file(folder):
    folder.write_text("")
    return folder


def empty(folder):
    folder.mkdir()
    return folder


def of_something_else(folder):
    empty(folder)
    (folder / "notes.txt").write_text("")
    return folder


def started(folder):
    (folder / "checkpoint_000000000008").mkdir(parents=True)
    return folder


def without_losses(folder):
    return write(folder, [{"images": 5, "swd_A2B": 1.0}])


def no_lines(folder):
    return write(folder, [])


def damaged_settings(folder):
    write(folder, losses(1))
    (folder / "run.json").write_text("[]")
    return folder


def settings_of_another_type(folder):
    write(folder, losses(1))
    (folder / "run.json").write_text('{"config": {"data": 1}}')
    return folder


def no_settings(folder):
    write(folder, losses(1))
    (folder / "run.json").write_text('{"dataset": ""}')
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, "run: no such run folder"),
        (a_file, "run: a file; give the run's folder"),
        (empty, r"run: no such run folder, or nothing in it"),
        (of_something_else, r"run: not a run folder: neither metrics.jsonl nor run.json nor checkpoints in it"),
        (started, r"run: no metrics yet: the run has written no metrics.jsonl"),
        (without_losses, r"run: no metrics yet: metrics.jsonl holds no losses"),
        (no_lines, r"run: no metrics yet: metrics.jsonl holds no losses"),
        (damaged_settings, r"run/run.json: damaged"),
        (settings_of_another_type, r"run/run.json: damaged \(a field has another type than was written\); "),
        (no_settings, r"run/run.json: damaged \(it lacks config\); "),
    ],
)
def test_what_is_no_run_is_said_in_one_line(tmp_path, make, message):
    with pytest.raises(UserError, match=message) as error:
        read_run(str(make(tmp_path / "run")))
    assert "\n" not in str(error.value)


def test_a_uri_that_cannot_be_opened_shows_no_credentials():
    with pytest.raises(UserError, match="cannot be opened") as error:
        read_run("nowhere://key:value@bucket/run?secret_key=hidden")
    assert "hidden" not in str(error.value)
    assert "value" not in str(error.value)
