"""`python -m cluster train`: check the run, plan it or train it, and print where its results are."""

import sys
from collections.abc import Sequence

from cluster.machines import driver
from cluster.records.run_state import outcome_recorded
from cluster.settings.options import parse_options
from cluster.settings.preflight import Prepared, prepare


def main(arguments: Sequence[str]) -> None:
    """Raises: UserError for what the user can fix, a line for each problem."""
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
    try:
        with outcome_recorded(prepared.folder):
            if options.local:
                driver.train_in_process(prepared)
            else:
                driver.train_on_cluster(prepared, options.address)
    except (KeyboardInterrupt, SystemExit):
        print("stopped; the same command continues from the newest checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{prepared.config.name} has finished: {prepared.clock.total:,} images seen")
    print(places(prepared))


def places(prepared: Prepared) -> str:
    """Where a run's results are."""
    folder = prepared.folder.label
    lines = [("checkpoints", f"{folder}/checkpoint_*"), ("metrics", f"{folder}/metrics.jsonl")]
    if prepared.config.observe.previews:
        lines.append(("pictures", f"{folder}/previews"))
    if prepared.config.observe.tensorboard:
        lines.append(("curves", f"tensorboard --logdir {folder}"))
    lines.append(("status", f"python -m cluster status {folder}"))
    lines.append(("translate", f"python -m nla_cyclegan translate --weights {folder} --direction B2A --out OUT IMAGES"))
    return "\n".join(f"  {name:<12}{text}" for name, text in lines)
