"""What a run in a bucket leaves there to be looked at, and `python -m cluster status` of it."""

import io
import json
from pathlib import Path

import pytest
import tiny
from object_stores import Bucket, ObjectStore
from PIL import Image

from cluster import status
from cluster.__main__ import main
from cluster.ranks.world import World
from cluster.settings.preflight import claim, prepare
from cluster.training.loop import train
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder


def test_a_run_in_a_bucket_can_be_looked_at(bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observe = {"every": 4, "tensorboard": True, "previews": 8}
    config = tiny.config(tiny.pack_dataset(tmp_path), tmp_path, schedule={"images": 8}, observe=observe)
    prepared = prepare(config.model_copy(update={"storage": bucket.uri("some/runs")}))
    claim(prepared)
    train(prepared.config, World())
    capsys.readouterr()

    files = prepared.folder.files()
    assert "previews/images_000000000008.png" in files
    picture = Image.open(io.BytesIO(prepared.folder.read("previews/images_000000000008.png") or b""))
    assert picture.size == (1360, 1772)
    assert len([name for name in files if name.startswith("tensorboard/events")]) == 1
    assert len([name for name in files if name.startswith("tensorboard/previews/events")]) == 1

    uri = bucket.uri("some/runs/tiny")
    status.main([uri, "--verify"])
    text = capsys.readouterr().out
    assert f"run          {bucket.label('some/runs/tiny')}\n" in text
    assert "progress     8 images of 8 (100.0%)" in text
    assert "checkpoints  1 complete, 0 not" in text
    assert "warning" not in text
    for storage in ("some/runs", "some/runs/"):
        status.main([bucket.uri(storage)])
        assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["tiny", "finished"]
    status.main([uri, "--json"])
    assert json.loads(capsys.readouterr().out)[0]["health"]["state"] == "finished"

    # To another folder of the bucket, from there to a disk; then the one in the bucket goes, and nothing beside it.
    for source, target in ((uri, bucket.uri("kept/one")), (bucket.uri("kept/one"), str(tmp_path / "kept"))):
        assert main(["copy", source, target]) == 0
        status.main([target, "--verify"])
        text = capsys.readouterr().out
        assert "checkpoints  1 complete, 0 not" in text
        assert "warning" not in text
    assert main(["remove", bucket.uri("kept/one"), "--yes"]) == 0
    assert RunFolder(bucket.uri("kept"), "one").files() == {}
    assert prepared.folder.files() == files


@pytest.mark.parametrize("uri", ["s3://absent/runs/tiny", "s3://{}/nothing", "s3://{}"])
def test_where_no_run_is_one_line_says_so(s3_store: ObjectStore, uri: str) -> None:
    bucket = s3_store.make_bucket()
    place = uri.format(bucket.name)
    with pytest.raises(UserError, match=r"no run at|no (such )?bucket") as caught:
        status.main([place + bucket.uri("").partition("?")[1] + bucket.uri("").partition("?")[2]])
    assert place.split("/")[2] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
