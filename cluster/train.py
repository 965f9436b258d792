"""`python -m cluster train`: check, plan, train, say where everything is."""

import sys
from collections.abc import Sequence

from cluster.machines import driver
from cluster.records.ending import ending_told
from cluster.settings.options import parse_options
from cluster.settings.plan import plan_text
from cluster.settings.preflight import Prepared, prepare


def main(arguments: Sequence[str]) -> None:
    """Raises: UserError, UserError: what the user can mend, a line for each thing."""
    options = parse_options(arguments)
    prepared = prepare(options.config)
    if options.dry_run:
        print(plan_text(prepared, local=options.local))
        return
    if prepared.finished:
        print(f"{prepared.config.name} is finished: {prepared.images_seen:,} images seen")
        print(places(prepared))
        return
    prepared.folder.probe()
    try:
        with ending_told(prepared.folder):
            if options.local:
                driver.train_in_process(prepared)
            else:
                driver.train_on_cluster(prepared, options.address)
    except (KeyboardInterrupt, SystemExit):
        # Ray Train turns Ctrl-C into an exit.
        print("stopped; the same command goes on from the newest checkpoint", file=sys.stderr)
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
