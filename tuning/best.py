"""`python -m tuning best`: the configuration and the weights of a sweep's best trial."""

import argparse
import sys
from collections.abc import Sequence

import yaml

from data_shards.errors import UserError, say_warning
from data_shards.storage.folder import RunFolder, join_uri, split_uri
from nla_cyclegan.weights.names import CHOICES
from nla_cyclegan.weights.references import NEWEST, Reference, select
from tuning.analysis.comparable import trials_warning
from tuning.analysis.results import Results, best_config, best_trial, read_results


def main(arguments: Sequence[str]) -> int:
    """Raises: UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning best",
        description="Print the best trial's configuration: python -m tuning best URI > best.yaml; "
        "python -m cluster train --config best.yaml",
    )
    parser.add_argument("uri", metavar="URI", help=f"the sweep's folder: STORAGE/NAME; {CHOICES}")
    parser.add_argument(
        "--checkpoint-to",
        metavar="DEST",
        help="also copy its newest checkpoint, or the one that the @ names, to this new folder: a path or a URI",
    )
    args = parser.parse_args(arguments)
    sweep = Reference.of(args.uri)
    if sweep.choice and not args.checkpoint_to:
        raise UserError(f"{args.uri}: @{sweep.choice} names a checkpoint to copy; say where with --checkpoint-to")
    results = read_results(sweep.uri)
    config = best_config(results)
    if warning := trials_warning(results.trials):
        say_warning(warning)
    if best_trial(results).exploits:
        print("note: the values of this trial changed during training; these are its last ones", file=sys.stderr)
    if args.checkpoint_to:
        print(copy_checkpoint(results, sweep, args.checkpoint_to), file=sys.stderr)
    yaml.safe_dump(config, sys.stdout, sort_keys=False)
    return 0


def copy_checkpoint(results: Results, sweep: Reference, destination: str) -> str:
    """Copy a checkpoint of the best trial, the newest where the reference names none. Returns: a message that names both places.

    Raises: UserError when there is none, when it is damaged, or when the destination is not empty.
    """
    from nla_cyclegan.weights.checkpoint import CheckpointReader, complete_checkpoints

    trial = RunFolder(join_uri(*split_uri(sweep.uri)), best_trial(results).name)
    if not complete_checkpoints(trial):
        raise UserError(f"{trial.label} has no complete checkpoint")
    selected = select(trial.location, sweep.choice or NEWEST)
    target = RunFolder(*split_uri(destination))
    if target.names():
        raise UserError(f"--checkpoint-to: {target.label} is not empty; name a new folder")
    CheckpointReader(trial.location.inside(selected.name)).copy_to(target)
    why = f" ({selected.why})" if sweep.choice else ""
    return f"copied {trial.label}/{selected.name} to {target.label}{why}"
