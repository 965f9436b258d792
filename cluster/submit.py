"""`python -m cluster submit`: send a run, or a translation, to a cluster as a Ray job, with this project's code, and follow its log."""

import re
import shlex
from collections.abc import Sequence

from cluster.jobs.job import Job
from cluster.jobs.submission import submit_command
from cluster.settings.folders import unreachable_folders
from cluster.settings.options import FORK_OF, TAKE_OVER, parse_options, train_command
from cluster.settings.preflight import relative_paths
from cluster.translation.options import parse, parser, shown_credentials
from cluster.translation.options import relative_paths as relative_paths_of
from data_shards.errors import UserError
from data_shards.storage.folder import split_uri

TRANSLATE = "translate"
TRAIN_HELP = (
    "Every other option is one of the run: --config, --data.uri, --scaling.workers, ...: see python -m cluster train "
    "--help. After the word translate: those of a translation, see python -m cluster translate --help."
)


def main(arguments: Sequence[str]) -> int:
    """The exit status of the job; 0 where it is not waited for; 130 after Ctrl-C.

    Raises: UserError with a line for each problem, before anything is sent.
    """
    return submit_command(
        arguments,
        make_job,
        "python -m cluster submit",
        "TRAIN OPTIONS | translate OPTIONS IN OUT",
        "Send a run, or a translation, to a Ray cluster and follow its log; the same command again follows one that is "
        "running. Ctrl-C stops following the log; a second one right after it stops the job.",
        TRAIN_HELP,
    )


def make_job(of_the_run: Sequence[str]) -> Job:
    """Check a run, or a translation, before anything is sent. Raises: UserError."""
    if TRANSLATE in of_the_run[:1]:
        return _translation(of_the_run[1:])
    options = parse_options(of_the_run)
    problems = relative_paths(options.config, options.fork_of)
    if options.local:
        problems.append("--local: trains in this process: python -m cluster train --local")
    problems += unreachable_folders(options.config) if not problems else []
    if problems:
        raise UserError("\n".join(problems))
    config = options.config
    fork = [FORK_OF, options.fork_of] if options.fork_of else []
    # The last, where a job that runs already is compared without it.
    command = train_command(config, *fork, *([TAKE_OVER] if options.take_over else []))
    return Job(config.name, {"run": config.name, "storage": config.storage}, command)


def _translation(arguments: Sequence[str]) -> Job:
    given = parser().parse_args(arguments)
    problems = [*relative_paths_of(given), *shown_credentials(given)]
    if problems:
        raise UserError("\n".join(problems))
    parse(arguments)
    command = shlex.join(["python", "-m", "cluster", TRANSLATE, *arguments])
    # Its name, which is the beginning of the job's, has no other letters.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{TRANSLATE}-{split_uri(given.out)[1]}").strip("-")
    return Job(name, {TRANSLATE: given.out}, command, doing="running", named_by="OUT")
