from collections.abc import Iterator

import pytest
from fault_proxy import FaultProxy
from image_folders import make_dataset
from object_stores import ObjectStore, azurite, bucket, google, moto, rclone, s3_store, store
from pyarrow import fs
from streams import SPLITS, Packed, images_of

from data_shards import Dataset
from data_shards.packing.pack import pack

__all__ = ["azurite", "bucket", "google", "moto", "rclone", "s3_store", "store"]


@pytest.fixture(autouse=True)
def _attempts_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its attempts pyarrow's client waits for half a second on average, which is not what is tested here: as many, at once."""
    monkeypatch.setattr(
        fs, "AwsStandardS3RetryStrategy", lambda max_attempts: fs.AwsDefaultS3RetryStrategy(max_attempts - 1)
    )


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("local"), SPLITS)


@pytest.fixture(scope="session")
def _packed(local: Dataset, rclone: ObjectStore) -> Packed:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rclone.use(monkeypatch)
        packed = Packed(local, rclone.make_bucket())
        pack(images_of(local), packed.bucket.uri("data"))
    return packed


@pytest.fixture
def packed(_packed: Packed, monkeypatch: pytest.MonkeyPatch) -> Packed:
    _packed.bucket.store.use(monkeypatch)
    return _packed


@pytest.fixture
def proxy(rclone: ObjectStore) -> Iterator[FaultProxy]:
    with FaultProxy(rclone.port) as proxy:
        yield proxy
