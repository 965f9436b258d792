"""Checkpoints as they lie in storage: their names, when they are whole, which are kept, and reading them with care.

Each rank uploads its share of a checkpoint's files and last of all `share-<rank>-of-<world>.json`, which lists them with
size and SHA-256: the checkpoint is complete when every rank's list is there. Reading one runs no code: the files are
safetensors and JSON.
"""

from collections.abc import Mapping

from cluster.ranks.world import World
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import age, share_file


def store_share(files: Mapping[str, bytes], folder: RunFolder, name: str, world: World) -> None:
    """Write a rank's share of a checkpoint to storage, its list of files last."""
    written = {file: vars(folder.write(f"{name}/{file}", content)) for file, content in files.items()}
    folder.write_json(f"{name}/{share_file(world.rank, world.size)}", {"files": written})


def superfluous(checkpoints: Mapping[str, float | None], keep: int, keep_best: int) -> list[str]:
    """Which complete checkpoints are neither among the newest nor among the best.

    Args:
        checkpoints: name -> score, lower is better; None where it was not evaluated.
    """
    newest = sorted(checkpoints, key=age, reverse=True)[:keep]
    scored = {name: score for name, score in checkpoints.items() if score is not None}
    # Of two that are as good the older one: a run that has stopped improving keeps what it has.
    best = sorted(scored, key=lambda name: (scored[name], age(name)))[:keep_best]
    return [name for name in checkpoints if name not in (*newest, *best)]
