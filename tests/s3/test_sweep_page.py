"""A sweep in a bucket gets its page as one on disk does."""

from pathlib import Path

import sweep_records
from object_stores import Bucket

from data_shards.storage.folder import RunFolder
from tuning import dashboard


def test_a_sweep_in_a_bucket_has_a_page(bucket: Bucket, tmp_path: Path) -> None:
    local = Path(sweep_records.sweep(tmp_path, 12))
    sweep_records.preview(str(local), 0)
    there = RunFolder(bucket.uri("sweeps"), local.name)
    for file in filter(Path.is_file, local.rglob("*")):
        there.upload(file, file.relative_to(local).as_posix())
    page = tmp_path / "page.html"
    assert dashboard.main([bucket.uri(f"sweeps/{local.name}"), "--out", str(page)]) == 0
    body = page.read_text()
    assert "of 12 trials" in body
    assert 'src="data:image/webp' in body
    assert there.label in body
