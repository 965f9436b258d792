"""The records in OUT beside the images: weights and settings of the translation, and the images left out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cluster.translation.options import TranslationSettings
from data_shards.errors import UserError, shown_name
from data_shards.images.signatures import RECORD
from data_shards.storage import Location, delete_files, file_size, write_file
from data_shards.storage.files import read_json
from nla_cyclegan.model.generator import Generator

ABOUT = RECORD
LEFT_OUT = "left_out.txt"


def begin(out: Location, generator: Generator, settings: TranslationSettings) -> None:
    """Record the weights and settings in OUT. Raises: UserError if OUT was begun with others."""
    ours = {"weights": fingerprint(generator), **asdict(settings)}
    # The batch size changes no image.
    del ours["batch"]
    there = read_json(out, ABOUT)
    if there is None:
        write_file(out, ABOUT, json.dumps(ours, indent=1).encode())
    elif there != ours:
        raise UserError(f"{out.uri}: was begun with {_difference(there, ours)}; give another OUT, or the same as then")


def _difference(there: Any, ours: Mapping[str, Any]) -> str:
    if not isinstance(there, dict):
        return f"something else ({ABOUT})"
    names = [name for name in ours if there.get(name) != ours[name]]
    if "weights" in names:
        return "other weights (a run's newest checkpoint changes while it trains: RUN@120000 does not)"
    return ", ".join(f"{name} {there.get(name)}, not {ours[name]}" for name in names) or f"something else ({ABOUT})"


def fingerprint(generator: Generator) -> str:
    """A hash of weights and configuration, independent of how the generator was stored."""
    digest = hashlib.sha256(generator.config.model_dump_json().encode())
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


def write_left_out(out: Location, left_out: Mapping[str, str]) -> None:
    """Write the images left out and the reasons to a file in OUT; remove the file if there are none."""
    if left_out:
        lines = [f"{shown_name(name)}\t{reason}\n" for name, reason in sorted(left_out.items())]
        write_file(out, LEFT_OUT, "".join(lines).encode())
    elif file_size(out, LEFT_OUT) is not None:
        delete_files(out, [LEFT_OUT])
