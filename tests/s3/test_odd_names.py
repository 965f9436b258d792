"""Prefixes with characters that mean something in a URI, through every use of one: as typed, and escaped."""

from pathlib import Path
from urllib.parse import quote

import pytest
import sweep_records
import tiny
import yaml
from object_stores import Bucket
from streams import images_of, take

from cluster import status, train
from data_shards import Dataset
from data_shards import __main__ as data_shards
from data_shards.storage import list_files, locate, write_file
from data_shards.storage.folder import RunFolder
from nla_cyclegan import load_generators
from tuning import best, dashboard

ODD = "my data/50% #1 + [ü] 'x' a?b"


@pytest.mark.parametrize("store", ["rclone", "moto", "google"], indirect=True)
@pytest.mark.parametrize(
    "name", [" ", "#", "#1", "50%", "a%20b", "a+b", "a?b", "a?b=c", "ü", "日本", "[x]", "a&b=c", "@", "~'\"<>^`{|}"]
)
def test_a_name_stands_for_itself(bucket: Bucket, name: str) -> None:
    """What a folder's own label says is that folder."""
    folder = RunFolder(bucket.uri("runs"), "run")
    here = locate(bucket.uri(""))
    write_file(here, f"x/{name}/file", b"1")
    typed = name.replace("%2", "%252").replace("?b=", "%3Fb=")
    assert list_files(locate(bucket.uri(f"x/{typed}"))) == {"file": 1}
    assert list_files(locate(bucket.uri(f"x/{quote(name)}"))) == {"file": 1}
    assert folder.label == f"{folder.label.partition(':')[0]}://{bucket.name}/runs/run"
    odd = RunFolder(bucket.uri(f"x/{typed}"), "run")
    options = bucket.uri("").partition("?")[2]
    assert (
        locate(f"{odd.label.replace('gs://', 'gs://anonymous@')}?{options}").root
        == odd.path
        == f"{bucket.name}/x/{name}/run"
    )


# Not rclone: its server takes the mark that pyarrow leaves in place of a deleted file for a file.
@pytest.mark.parametrize("store", ["moto"], indirect=True)
def test_every_verb_with_odd_prefixes(
    bucket: Bucket, local: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, runs = bucket.uri(f"{ODD}/data"), bucket.uri(f"{ODD}/runs")
    assert data_shards.main(["pack", str(images_of(local)), data]) == 0
    assert len(take(data)) == len(take(local))
    assert data_shards.main(["inspect", data]) == 0
    assert data_shards.main(["verify", data]) == 0
    options = tiny.settings(data, tmp_path, schedule={"images": 8})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(options | {"storage": runs}))
    for said in ("tiny has finished: 8 images seen", "tiny is finished: 8 images seen"):
        train.main(["--local", "--config", str(tmp_path / "run.yaml")])
        assert said in capsys.readouterr().out
    run = bucket.uri(f"{ODD}/runs/tiny")
    status.main([run])
    assert f"s3://{bucket.name}/{ODD.replace('%', '%25').replace('?', '%3F')}/runs/tiny" in capsys.readouterr().out
    status.main([runs])
    assert "tiny" in capsys.readouterr().out
    assert set(load_generators(run)) == {"A2B", "B2A"}
    swept = Path(sweep_records.sweep(tmp_path, 12))
    there = RunFolder(runs, swept.name)
    for file in filter(Path.is_file, swept.rglob("*")):
        there.upload(file, file.relative_to(swept).as_posix())
    assert dashboard.main([bucket.uri(f"{ODD}/runs/{swept.name}"), "--out", str(tmp_path / "page.html")]) == 0
    assert "of 12 trials" in (tmp_path / "page.html").read_text()
    assert best.main([bucket.uri(f"{ODD}/runs/{swept.name}")]) in (0, None)
