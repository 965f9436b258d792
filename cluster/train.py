"""`python -m cluster train`: check the run, plan it or train it, and print where its results are."""

import sys
from collections.abc import Sequence
from functools import partial
from shlex import quote

from cluster.machines import driver
from cluster.machines.stop_signals import StopSignals
from cluster.records import events
from cluster.records.run_state import outcome_recorded
from cluster.settings.options import parse_options
from cluster.settings.preflight import Prepared, prepare
from data_shards.errors import Stopped


def main(arguments: Sequence[str]) -> None:
    """Raises: UserError for what the user can fix, a line for each problem; SystemExit with 130 or 143 when it was stopped."""
    options = parse_options(arguments)
    prepared = prepare(options.config)
    if options.dry_run:
        # It imports torch, to build the networks.
        from cluster.settings.dry_run import plan_text

        print(plan_text(prepared, local=options.local))
        return
    if prepared.finished:
        print(f"{prepared.config.name} is finished: {prepared.images_seen:,} images seen")
        print(places(prepared))
        return
    prepared.folder.probe()
    attempt_id = events.new_id()
    try:
        with (
            StopSignals(partial(driver.say, prepared.config)) as signals,
            events.opened(prepared.folder, attempt_id, "driver"),
            outcome_recorded(prepared.folder),
        ):
            if options.local:
                driver.train_in_process(prepared, signals)
            else:
                driver.train_on_cluster(prepared, options.address, signals, attempt_id)
    except Stopped as stopped:
        print(f"stopped ({stopped}); the same command continues from the newest checkpoint", file=sys.stderr)
        raise SystemExit(stopped.status) from None
    print(f"{prepared.config.name} has finished: {prepared.clock.total:,} images seen")
    print(places(prepared))


def places(prepared: Prepared) -> str:
    """Where a run's results are."""
    folder = quote(prepared.folder.label)
    lines = [("checkpoints", f"{folder}/checkpoint_*"), ("metrics", f"{folder}/metrics.jsonl")]
    if prepared.config.observe.previews:
        lines.append(("pictures", f"{folder}/previews"))
    if prepared.config.observe.tensorboard:
        lines.append(("curves", f"tensorboard --logdir {folder}"))
    lines.append(("status", f"python -m cluster status {folder}"))
    lines.append(("translate", f"python -m nla_cyclegan translate --weights {folder} --direction B2A --out OUT IMAGES"))
    return "\n".join(f"  {name:<12}{text}" for name, text in lines)
