"""A checkpoint in another place."""

from collections.abc import Mapping

from data_shards.storage.folder import RunFolder


def copy_checkpoint(
    source: RunFolder, target: RunFolder, name: str, files: Mapping[str, int], there: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Copy a checkpoint into another run's folder; readers see it whole or not at all.

    Args:
        files: names and sizes of its files.
        there: names (with the checkpoint's) and sizes of files that the target has already.

    Returns: names and sizes of the files that were copied.

    Raises: FileNotFoundError when it is deleted meanwhile; UserError when storage refuses or does not answer.
    """
    copied = {}
    # The lists of its files make it a checkpoint: they come last.
    for file in sorted(files, key=lambda file: file.endswith(".json")):
        path, size = f"{name}/{file}", files[file]
        if (there or {}).get(path) != size:
            # Whole files: pyarrow's own copying waits for itself between two places of one store.
            content = source.read(path)
            if content is None:
                raise FileNotFoundError(path)
            target.write(path, content)
            copied[path] = size
    return copied
