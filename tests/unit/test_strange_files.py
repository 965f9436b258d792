"""Files of a stranger: whatever their lists, names and JSON say, nothing is written outside, and one line says what is wrong."""

import copy
import hashlib
import io
import json
import math
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cluster.ownership.attempt import FOLDER, RECORD
from cluster.ownership.records import Record, Records, own_record
from cluster.records.metrics_file import parse_records
from cluster.settings.identity import about
from cluster.settings.preflight import prepare
from cluster.status import main as status
from data_shards import open_dataset, read_split
from data_shards.checking.index import index
from data_shards.dataset.rows import IndexRows
from data_shards.errors import UserError, error_lines
from data_shards.storage import RangeReader, locate
from data_shards.storage.checked import inside_name
from data_shards.storage.folder import RunFolder
from data_shards.stream.cache import DiskCache
from data_shards.stream.read import SampleReader
from nla_cyclegan import Generator, GeneratorConfig, load_generator
from nla_cyclegan.weights.checkpoint import CheckpointReader
from nla_cyclegan.weights.checkpoint_names import name_of
from nla_cyclegan.weights.commit import Commit, commit_file, share_file, write_commit
from nla_cyclegan.weights.generators import metadata_of
from nla_cyclegan.weights.references import select
from tuning.__main__ import main as tuning
from tuning.analysis.results import Trial, best_config, read_results
from tuning.analysis.rows import as_table, rows

EVIL = ["../../outside.txt", "..", ".", "", "/etc/passwd", "a/../../b", "a//b", "..\\b", "C:\\b", "C:b", "a\0b", "a\nb"]
EVIL += ["\ud800", "x" * 300, "../" * 50, "~/b", "a\u2028b", "commit-of-99999.json", "run.json/x"]
NUMBERS = st.sampled_from([-1, 0, 1, 2**31, 2**63, 10**30, 10**400, 1e308, float("nan"), float("inf"), 0.5])
LEAVES = st.none() | st.booleans() | NUMBERS | st.sampled_from(EVIL) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
QUICK = settings(
    max_examples=30, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """The document with a value replaced, a field left out or a name changed, up to three times."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(document, dict | list) or not document or draw(st.integers(0, 19)) == 0:
            return draw(VALUES)
        parent = document
        while True:
            key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
            inner = parent[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
                break
            parent = inner
        change = draw(st.sampled_from(["replace", "remove", "rename"]))
        if change == "remove":
            del parent[key]
        elif change == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(EVIL))] = parent.pop(key)
        else:
            parent[key] = draw(VALUES)
    return document


def contents(root: Path, *, but: str) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in root.rglob("*") if file.is_file() and but not in file.parts}


def harmless(root: Path, act: Callable[[], object], inside: str = "inside") -> None:
    """Whatever comes of it: nothing outside that folder changes, and what is refused is refused in one line."""
    before, said = contents(root, but=inside), ""
    try:
        act()
    except UserError as error:
        said = str(error)
    assert said.isprintable()
    assert contents(root, but=inside) == before


@given(st.sampled_from(EVIL) | st.text(max_size=12))
@QUICK
def test_a_name_that_is_taken_lies_inside(name: str) -> None:
    try:
        inside_name(name)
    except ValueError:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
        assert (root / name).resolve().is_relative_to(root)


FILES = {"generator_ab.safetensors": b"weights", "run.json": b"{}"}
LISTED = {name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()}
# What lies outside, listed as if it were the checkpoint's, with its true checksum: it was copied over the user's.
OUTSIDE = {"size_bytes": 7, "sha256": hashlib.sha256(b"private").hexdigest()}
COMMIT = {"world": 1, "files": LISTED}


@pytest.mark.parametrize("listing", [commit_file(1), share_file(0, 1)])
@given(content=damaged(COMMIT))
@example(content={"world": 1, "files": {**LISTED, "../../outside.txt": OUTSIDE}})
@example(content={"world": 1, "files": {**LISTED, "a/../../../outside.txt": OUTSIDE}})
@QUICK
def test_a_copy_of_a_checkpoint_stays_in_its_folder(listing: str, content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = root / "theirs" / "checkpoint"
        source.mkdir(parents=True)
        for name, data in FILES.items():
            (source / name).write_bytes(data)
        (source / listing).write_text(json.dumps(content))
        for name in ("outside.txt", "theirs/outside.txt", "inside/outside.txt"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"private")
        target = RunFolder(str(root / "inside"), "copy")
        harmless(root, lambda: CheckpointReader(locate(str(source))).copy_to(target), inside="copy")
        assert not any(path.name == "outside.txt" for path in (root / "inside" / "copy").rglob("*"))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@given(data=st.data())
@QUICK
def test_a_strangers_manifest(uri: str, data: st.DataObject) -> None:
    whole = json.loads((Path(uri) / "manifest.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        theirs = root / "theirs" / "data"
        theirs.mkdir(parents=True)
        for file in Path(uri).iterdir():
            if file.name != "manifest.json":
                (theirs / file.name).symlink_to(file)
        (theirs / "manifest.json").write_text(json.dumps(data.draw(damaged(whole))))

        def read() -> None:
            dataset = open_dataset(str(theirs))
            cache = DiskCache(root / "inside" / "cache", 10**6)
            ranges = RangeReader(locate(dataset.uri))
            for split in dataset.splits:
                reader = SampleReader(dataset, split, ranges, IndexRows(ranges, dataset), cache)
                reader.read(reader.split.extents.first)
                list(read_split(dataset, split, size=8))

        harmless(root, read)


def test_a_cache_writes_where_a_manifest_says_and_so_it_may_not_say_where(uri: str, tmp_path: Path) -> None:
    manifest = json.loads((Path(uri) / "manifest.json").read_text())
    manifest["shards"][0]["sha256"] = "../../evil"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json of .* is damaged: shards\.0\.sha256"):
        open_dataset(str(tmp_path))


@given(data=st.data())
@QUICK
def test_the_files_of_a_strangers_run(uri: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = tiny.config(uri, root / "runs")
        prepared = prepare(config)
        files = {
            "run.json": about(prepared.config, prepared.dataset),
            "state.json": {"state": "failed", "reason": "x", "time": 1.0, "images": 8},
        }
        for name, whole in files.items():
            prepared.folder.write_json(name, data.draw(damaged(whole)))
        records = [{"images": 8, "time": 2.0, "generator_total": 1.5, "images_per_s": 2.0}] * 3
        strange = data.draw(damaged(records))
        lines = map(json.dumps, strange if isinstance(strange, list) else [strange])
        prepared.folder.write("metrics.jsonl", "\n".join(lines).encode("utf-8", "surrogatepass"))
        harmless(root, lambda: status([prepared.folder.path]))
        harmless(root, lambda: status([prepared.folder.path, "--json"]))
        harmless(root, lambda: prepare(config))


@given(damaged([{"images": 8, "generator_total": 1.5}] * 2))
@QUICK
def test_strange_records_are_skipped(records: Any) -> None:
    lines = [json.dumps(record) for record in records] if isinstance(records, list) else [json.dumps(records)]
    for record in parse_records("\n".join([*lines, "[" * 100_000, "{}"]).encode()):
        assert record["images"] >= 0
        assert all(float(value) is not None for value in record.values() if value is not None)


DEEP = json.loads('{"a":' * 900 + "1" + "}" * 900)
RECORD_LINE = b'{"images": 8, "time": 2.0, "generator_total": 1.5, "images_per_s": 2.0}\n'


@pytest.mark.parametrize(
    "fields",
    [
        {"clock": {"epoch": 10**400, "total": 10**400}},
        {"clock": {"epoch": 2**53, "total": 8}},
        {"origin": 5},
        {"origin": {"run": "\x1b[2J"}},
        {"config": {"a": DEEP}},
        {"config": {"\x1b[2J": 1, "model": {}}},
        {"score": 10**400, "score_definition": "\x1b[2J"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_a_strange_run_json(
    uri: str, tmp_path: Path, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.config(uri, tmp_path / "runs")
    prepared = prepare(config)
    whole = about(prepared.config, prepared.dataset)
    strange = {**whole, **fields, "config": {**whole["config"], **fields.get("config", {})}}
    files = {"run.json": strange, "state.json": {"state": "training", "time": 1e300}}
    name = name_of(8, "1abcd1ab")
    for file, value in {**files, f"{name}/run.json": strange}.items():
        prepared.folder.write_json(file, value)
    write_commit(prepared.folder, name, Commit({}, 1))
    prepared.folder.write("metrics.jsonl", RECORD_LINE * 3)
    fork = config.model_copy(update={"name": "fork"})
    path = prepared.folder.path
    for act in (
        lambda: status([path]),
        lambda: status([path, "--json"]),
        lambda: prepare(config),
        lambda: prepare(fork, path),
        lambda: select(locate(path), "best"),
    ):
        try:
            act()
        except UserError as error:
            print(error_lines(error))
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())


def test_events_reach_a_terminal_without_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Garbage lines, fields of other types, escape codes, half characters: what is an event is shown, in one line."""
    events = [
        {"time": 1.0, "kind": "saved\x1b[2J", "text": "one\ntwo\x1b[31m\u2028three"},
        *({"time": time, "kind": "x", "text": "lost"} for time in (10**400, "1", None, [1], math.nan)),
        {"time": 2.0, "kind": "x", "text": "lost \ud800"},
        {"time": 2.0, "kind": "x", "text": "lost", "more": DEEP},
    ]
    lines = [*(json.dumps(event).encode() for event in events), b"garbage \xff", b"[" * 100_000, b"5", b"null"]
    folder = RunFolder(str(tmp_path), "run")
    folder.write("events/1abcd-driver.jsonl", b"\n".join(lines))
    folder.write_json("run.json", {})
    assert status([folder.path]) == 0
    said = capsys.readouterr().out
    assert re.search(r"saved\\x1b\[2J +one\\ntwo\\x1b\[31m\\u2028three\n", said)
    assert "lost" not in said
    assert all(line.isprintable() for line in said.splitlines())


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {"one": b"{}", "two": b"{"}.items():
        RunFolder(str(tmp_path), name).write("run.json", content)
    assert status([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "one " in said.out
    assert said.err.startswith(f"warning: {tmp_path}/two/run.json: damaged (")
    with pytest.raises(UserError, match=r"two/run\.json: damaged"):
        status([str(tmp_path / "two")])


@pytest.mark.parametrize(
    "name", ["state.json.tmp", "run.json.tmp", "state.json", "metrics.jsonl", ".metrics.jsonl", "previews"]
)
def test_links_in_a_strangers_folder_lead_to_nothing_that_is_written(uri: str, tmp_path: Path, name: str) -> None:
    """The folder of somebody's run, out of a tar, is trained on: a link in it was written through."""
    for outside in (tmp_path / "outside.txt", tmp_path / "pictures" / "images_000000000008.png"):
        outside.parent.mkdir(exist_ok=True)
        outside.write_text("private")
    folder = RunFolder(str(tmp_path / "inside"), "run")
    folder.write("checkpoint_000000000008-1abcd1ab/run.json", b"{}")
    (Path(folder.path) / name).symlink_to(tmp_path / ("pictures" if name == "previews" else "outside.txt"))
    with pytest.raises(UserError, match=rf"^{folder.path}/{name}: a link that leads out of the run's folder[^\n]*$"):
        prepare(tiny.config(uri, tmp_path / "inside", name="run"))
    harmless(tmp_path, lambda: [folder.write(each, b"{}") for each in ("state.json", "run.json", "metrics.jsonl")])


@pytest.mark.timeout(120)
def test_links_that_lead_in_circles_are_listed_to_an_end(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    for name in ("a", "b"):
        folder.write(f"checkpoint_000000000008-1abcd1{name}{name}/run.json", b"{}")
    places = [Path(folder.path), *(Path(folder.path) / name for name in folder.names())]
    for place in places:
        for number, target in enumerate(places):
            (place / f"link-{number}").symlink_to(target)
    names = folder.files()
    assert {f"checkpoint_000000000008-1abcd1{each}/run.json" for each in ("aa", "bb")} <= names.keys()
    assert len(names) < 100
    assert status([folder.path]) == 0


def test_a_checkpoint_that_is_a_link_is_deleted_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside" / "sub").mkdir(parents=True)
    (tmp_path / "outside" / "sub" / "precious.txt").write_text("private")
    folder = RunFolder(str(tmp_path / "inside"), "run")
    folder.write("run.json", b"{}")
    name = "checkpoint_000000000008-1abcd1ab"
    (Path(folder.path) / name).symlink_to(tmp_path / "outside")
    assert folder.links_out() == [name]
    harmless(tmp_path, lambda: folder.delete_folder(name))
    assert folder.names() == ["run.json"]


TRIAL = Trial(
    number=0, overrides={"optimizer.lr": 0.1}, config={"name": "x", "observe": {"tensorboard": False}}, state="finished",
    evaluations=[{"images": 8, "score": 1.5, "distances": {"swd_A2B": 1.0}}],  # type: ignore[list-item]
).model_dump(mode="json")  # fmt: skip


@given(sweep=damaged({"sweep": {"trials": 2}, "run": {"storage": "runs"}, "dataset": "x"}), trial=damaged(TRIAL))
@QUICK
def test_the_records_of_a_strangers_sweep(sweep: Any, trial: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        runs = RunFolder(str(root), "sweep")
        runs.write_json("sweep.json", sweep)
        runs.write_json("trial-0000/trial.json", trial)

        def read() -> None:
            results = read_results(runs.path)
            as_table(rows(results.trials), results.trials)
            best_config(results)

        harmless(root, read)


@pytest.mark.parametrize("value", [10**400, "\ud800", "\x1b[2J"], ids=["long", "half a character", "escape"])
def test_the_values_of_a_strange_trial(tmp_path: Path, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = {
        "sweep": {"trials": 1, "space": {}, "objective": {}},
        "run": {"storage": "runs", "validation": {"every": 8}},
    }
    folder = RunFolder(str(tmp_path), "sweep")
    folder.write_json("sweep.json", sweep)
    folder.write_json("trial-0000/trial.json", {**TRIAL, "overrides": {"optimizer.lr": value}})
    for act in (
        ["results", folder.path],
        ["best", folder.path],
        ["dashboard", folder.path, "--out", f"{tmp_path}/o.html"],
    ):
        assert tuning(act) in (0, 2)
    said = capsys.readouterr()
    assert all(line.isprintable() for line in [*said.out.splitlines(), *said.err.splitlines()])


@given(damaged(asdict(own_record())))
@QUICK
def test_a_strange_owner_is_somebody(record: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = RunFolder(folder, "run")
        runs.write_json(f"{FOLDER}/1abcd{RECORD}", record)
        found = Records(runs).read("1abcd")
        assert isinstance(found, Record)
        assert str(found).isprintable()
        assert found.process.is_known_dead() in (True, False)


@given(data=st.data())
@QUICK
def test_a_strangers_weights(data: st.DataObject, tmp_path: Path) -> None:
    generator = Generator(GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=()))
    header = metadata_of(generator)
    config = json.loads(header["config"])
    header["config"] = json.dumps(data.draw(damaged(config)))
    file = tmp_path / "generator_ba.safetensors"
    file.write_bytes(safetensors.torch.save(generator.state_dict(), header))
    harmless(tmp_path, lambda: load_generator(file))


@pytest.mark.parametrize("config", [{"base_channels": 10**6}, {"num_blocks": 10**9}, {"base_channels": 10**30}])
def test_weights_take_no_more_memory_than_they_have(config: dict[str, int], tmp_path: Path) -> None:
    generator = Generator(GeneratorConfig(base_channels=2, num_blocks=1, nonlocal_blocks=()))
    whole = json.loads(metadata_of(generator)["config"])
    header = metadata_of(generator) | {"config": json.dumps(whole | config)}
    file = tmp_path / "generator_ba.safetensors"
    file.write_bytes(safetensors.torch.save(generator.state_dict(), header))
    with pytest.raises(UserError, match="damaged: "):
        load_generator(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.drop_columns(["offset"]),
        lambda rows: rows.slice(1),
        lambda rows: rows.set_column(4, "offset", pa.array([-512] * len(rows))),
        lambda rows: rows.set_column(4, "offset", pa.array([None] * len(rows), pa.int64())),
        lambda rows: rows.set_column(2, "key", pa.array(range(len(rows)))),
    ],
)
def test_a_strangers_index(uri: str, tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    shutil.copytree(uri, tmp_path / "data")
    index = tmp_path / "data" / "index.parquet"
    pq.write_table(change(pq.read_table(index)), index)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    manifest["index"]["bytes"] = index.stat().st_size
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^[^\n]*(index\.parquet|trainA-000000\.tar)[^\n]*$"):
        list(read_split(open_dataset(str(tmp_path / "data")), "trainA", size=8))


def test_the_members_of_a_strangers_tar(uri: str, tmp_path: Path) -> None:
    """Names in a tar are keys, not places."""
    inside = tmp_path / "inside"
    inside.mkdir()
    image = io.BytesIO()
    Image.new("RGB", (16, 16)).save(image, "PNG")
    with tarfile.open(inside / "trainA-000000.tar", "w") as tar:
        for number, name in enumerate(["../../outside", "/etc/outside", "C:\\outside", "a\nb", "~/outside"]):
            member = tarfile.TarInfo(f"{name}{number}.png")
            member.size = len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))

    def read() -> None:
        index(str(inside), [], [], force=False, jobs=1)
        assert len(list(read_split(open_dataset(str(inside)), "trainA", size=8))) == 5

    harmless(tmp_path, read)
