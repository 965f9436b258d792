"""`python -m tuning submit`: send a sweep to a cluster as a Ray job, with this project's code, and follow its log."""

import json
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cluster.jobs.job import EXCLUDED, Job, variable_problems, variables_sent
from cluster.jobs.submission import submit_command
from cluster.records.recorded_run import flat
from cluster.settings.folders import unreachable_folders
from cluster.settings.options import TAKE_OVER, option_text
from cluster.settings.preflight import relative_paths
from data_shards.errors import UserError
from tuning.settings.options import Options, parse_sweep

USAGE = "python -m tuning submit [--address URL] [--no-wait] [--dry-run] [--exclude PATTERN] [--env NAME=VALUE] [--pip PACKAGE | --runtime-env FILE ...] SWEEP OPTIONS"
SWEEP_HELP = (
    "Every other option is one of the sweep or of its run: --config, --preset, --trials, --data.uri, ...: see python -m "
    "tuning sweep --help. Credentials are not sent: they belong in the environment of the cluster's machines, or in their role."
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
        USAGE,
        "Send a sweep to a Ray cluster and follow its log; the same command again follows a sweep that runs, or continues "
        "it. Ctrl-C stops following the log; a second one right after it stops the sweep.",
        SWEEP_HELP,
    )


def make_job(
    of_the_sweep: Sequence[str],
    excludes: Sequence[str] = (),
    variables: Sequence[str] = (),
    runtime_env: Mapping[str, Any] = MappingProxyType({}),
) -> Job:
    """Check a sweep before anything is sent. Raises: UserError."""
    options = parse_sweep(of_the_sweep)
    config = options.config
    problems = relative_paths(options.base.model_copy(update={"storage": config.storage}))
    problems += unreachable_folders(options.base) if not problems else []
    problems += variable_problems(variables)
    if problems:
        raise UserError("\n".join(problems))
    take_over = [TAKE_OVER] if options.take_over else []
    command = shlex.join(["python", "-m", "tuning", "sweep", *as_options(options), *take_over])
    metadata = {"sweep": config.name, "storage": config.storage}
    return Job(
        config.name, metadata, command, [*EXCLUDED, *excludes], variables_sent(variables), runtime_env=runtime_env
    )


def as_options(options: Options) -> list[str]:
    """Equivalent options of `sweep` without any files, which the job does not have."""
    run = flat(options.base.model_dump(mode="json", exclude_defaults=True))
    sweep = options.config.model_copy(update={"train": None, "override": run})
    fields = sweep.model_dump(mode="json", exclude_defaults=True)
    whole = [f"--{name}={json.dumps(fields.pop(name))}" for name in WHOLE if name in fields]
    return [*(f"--{name}={option_text(value)}" for name, value in flat(fields).items()), *whole]
