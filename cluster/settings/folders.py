"""Training directly from two image folders: they are packed first, where the run's machines can read them."""

import os

from cluster.settings.config import RunConfig
from cluster.settings.preflight import absolute, check_paths, cluster_address, is_first_rank
from data_shards.errors import UserError, say
from data_shards.storage.location import expanded
from data_shards.storage.uri import is_uri, join_uri

OPTIONS = ("data.a", "data.b")
# In the user's cache, and in the storage of runs: hidden, so that it is no run's name.
IN_CACHE, IN_STORAGE = "packed", ".datasets"


def with_dataset(
    config: RunConfig, storage: str, *, address: str | None, local: bool = False, dry_run: bool = False
) -> RunConfig:
    """The configuration with `data.uri` in the place of `data.a` and `data.b`, packed unless they are packed already.

    Machines of a cluster cannot read this machine's folders: for them the dataset is stored beside the runs, in shared storage.
    Otherwise it is stored in the user's cache.

    Args:
        storage: of the run, or of the sweep.
        address: of a cluster; None: that of RAY_ADDRESS.
        local, dry_run: whether the command runs without a cluster.

    Raises: UserError where a folder has no images, or the dataset cannot be written.
    """
    if config.data.a is None or config.data.b is None:
        return config
    check_paths(config)
    data = absolute(config).data
    assert data.a is not None
    assert data.b is not None
    joins = cluster_address(address) is not None and not (local or dry_run)
    parent = join_uri(storage if is_uri(storage) else os.path.abspath(expanded(storage)), IN_STORAGE)
    from data_shards.packing.once import pack_once

    dataset = pack_once(
        data.a,
        data.b,
        parent if joins else _cache(),
        options=OPTIONS,
        say=say if is_first_rank() else lambda text: None,
    )
    return config.model_copy(update={"data": data.model_copy(update={"uri": dataset.uri, "a": None, "b": None})})


def unreachable_folders(config: RunConfig) -> list[str]:
    """Image folders that a job on a cluster could not read, one line each."""
    return [
        f"{field}: {place} is a folder of this machine, which the cluster's need not have; pack it into a bucket (python -m "
        "data_shards pack --a MONETS --b PHOTOS s3://BUCKET/NAME) and give that as --data.uri, or give URIs of both folders"
        for field, place in zip(OPTIONS, (config.data.a, config.data.b), strict=True)
        if place and not is_uri(place)
    ]


def _cache() -> str:
    from data_shards.stream.cache import default_folder

    folder = default_folder()
    if folder is None:
        raise UserError(
            "data.a: there is no cache to pack into, because this user has no home; choose a folder in XDG_CACHE_HOME, or pack by "
            "hand (python -m data_shards pack --a MONETS --b PHOTOS DEST) and give --data.uri DEST"
        )
    return str(folder.absolute() / IN_CACHE)
