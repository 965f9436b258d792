"""`python -m tuning submit`: send a sweep to a cluster as a Ray job, with this project's code, and follow its log."""

import json
import shlex
from collections.abc import Sequence

from cluster.jobs.job import Job
from cluster.jobs.submission import submit_command
from cluster.records.fields import flat
from cluster.settings.folders import unreachable_folders
from cluster.settings.options import TAKE_OVER, option_text
from cluster.settings.preflight import relative_paths
from data_shards.errors import UserError
from tuning.settings.options import Options, parse_sweep

SWEEP_HELP = (
    "Every other option is one of the sweep or of its run: --config, --preset, --trials, --data.uri, ...: see python -m "
    "tuning sweep --help."
)
# Fields that are mappings, given as JSON.
WHOLE = ("space", "override")


def main(arguments: Sequence[str]) -> int:
    """The exit status of the job; 0 where it is not waited for; 130 after Ctrl-C.

    Raises: UserError with a line for each problem, before anything is sent.
    """
    return submit_command(
        arguments,
        make_job,
        "python -m tuning submit",
        "SWEEP OPTIONS",
        "Send a sweep to a Ray cluster and follow its log; the same command again follows a sweep that runs, or continues "
        "it. Ctrl-C stops following the log; a second one right after it stops the sweep.",
        SWEEP_HELP,
    )


def make_job(of_the_sweep: Sequence[str]) -> Job:
    """Check a sweep before anything is sent. Raises: UserError."""
    options = parse_sweep(of_the_sweep)
    config = options.config
    problems = relative_paths(options.base.model_copy(update={"storage": config.storage}))
    problems += unreachable_folders(options.base) if not problems else []
    if problems:
        raise UserError("\n".join(problems))
    take_over = [TAKE_OVER] if options.take_over else []
    command = shlex.join(["python", "-m", "tuning", "sweep", *as_options(options), *take_over])
    return Job(config.name, {"sweep": config.name, "storage": config.storage}, command)


def as_options(options: Options) -> list[str]:
    """Equivalent options of `sweep` without any files, which the job does not have."""
    run = flat(options.base.model_dump(mode="json", exclude_defaults=True))
    sweep = options.config.model_copy(update={"train": None, "override": run})
    fields = sweep.model_dump(mode="json", exclude_defaults=True)
    whole = [f"--{name}={json.dumps(fields.pop(name))}" for name in WHOLE if name in fields]
    return [*(f"--{name}={option_text(value)}" for name, value in flat(fields).items()), *whole]
