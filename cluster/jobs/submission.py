"""Sending a job to a cluster and following it: what `cluster submit` and `tuning submit` share."""

import argparse
import asyncio
import json
import logging
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.jobs.follow import INTERRUPTED, follow, follow_commands, unreachable
from cluster.jobs.job import Job, package_size, variable_problems
from cluster.jobs.runtime_env import add_options, check_by_ray, python_of, read_runtime_env
from cluster.machines.session import ROOT
from cluster.machines.start_errors import named, token_error
from cluster.settings.options import TAKE_OVER, Parser
from data_shards.command_line import filled
from data_shards.errors import UserError, counted, missing_module, say
from data_shards.storage.proxy import keep_loopback_direct, proxy_for

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT_S = 10.0
USAGE = "[--address URL] [--no-wait] [--dry-run] [--exclude PATTERN] [--env NAME=VALUE] [--pip PACKAGE | --runtime-env FILE ...]"
CREDENTIALS = "Credentials are not sent: they belong in the environment of the cluster's machines, or in their role."


def submit_command(
    arguments: Sequence[str], make_job: Callable[[Sequence[str]], Job], prog: str, rest: str, about: str, epilog: str
) -> int:
    """A `submit` verb: parses its own options, and leaves the rest, those of the submitted command, to `make_job`.

    Returns, raises: as `submit`.
    """
    parser = submit_parser(prog, f"{prog} {USAGE} {rest}", about, f"{epilog} {CREDENTIALS}")
    options, of_the_command = parser.parse_known_args([argument for argument in arguments if argument != "--"])
    given = read_runtime_env(options)
    if given:
        _quiet()
        check_by_ray(given)
    excludes = [*options.exclude, *given.pop("excludes", [])]
    theirs = given.pop("env_vars", {})
    if twice := sorted({variable.partition("=")[0] for variable in options.env} & theirs.keys()):
        raise UserError(f"--env {twice[0]}: is also set by env_vars of the runtime environment; give it in one place")
    variables = [*options.env, *(f"{name}={value}" for name, value in theirs.items())]
    problems = list(variable_problems(variables))
    try:
        job = make_job(of_the_command)
    except UserError as error:
        raise UserError("\n".join([str(error), *problems])) from error
    if problems:
        raise UserError("\n".join(problems))
    return submit(job.with_environment(excludes, variables, given), options)


def submit_parser(prog: str, usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a submission's own options; unknown ones belong to the submitted command."""
    parser = Parser(prog=prog, usage=usage, description=description, epilog=epilog, allow_abbrev=False)
    parser.add_argument(
        "--address", type=filled, metavar="URL", help="the cluster's http://HOST:8265 (default: RAY_ADDRESS)"
    )
    parser.add_argument("--no-wait", action="store_true", help="print the job's name and return")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and exit")
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="also leave these files out; as in .gitignore"
    )
    parser.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable for the job; nothing secret"
    )
    add_options(parser)
    return parser


def submit(job: Job, options: argparse.Namespace) -> int:
    """Submit a job and follow it; if it is running already, follow that one instead.

    Args:
        options: parsed by `submit_command`.

    Returns: the exit status of the job; 0 where it is not waited for; 130 after Ctrl-C.

    Raises: UserError before anything is sent.
    """
    _quiet()
    size, count = package_size(job)
    sent = f"{counted(count, 'file')}, {size / 1e6:.1f} MB, of {ROOT}" if job.folders else "no code: the image has it"
    if options.dry_run:
        variables = " ".join(f"{name}={value}" for name, value in job.variables.items())
        print(f"{'command':<12}{job.command}\n{'sent':<12}{sent}\n{'environment':<12}{variables or '-'}")
        if job.runtime_env:
            print(f"{'runtime env':<12}{json.dumps(job.runtime_env)}")
        return 0
    client = connect(options.address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS"))
    job_id = running_job(client, job)
    status = f"is {job.doing} already; nothing was sent" if job_id else f"submitted ({sent})"
    job_id = job_id or _send(client, job)
    try:
        say(f"{job_id}: {status}")
        if not options.no_wait:
            return asyncio.run(follow(client, job_id))
    except KeyboardInterrupt:
        # Before `follow` handles it.
        say(follow_commands(client.get_address(), job_id))
        return INTERRUPTED
    print(job_id)
    say(follow_commands(client.get_address(), job_id))
    return 0


def _send(client: "JobSubmissionClient", job: Job) -> str:
    """Submit the job. Raises: UserError with the cluster's reason if it rejects the job."""
    import requests

    try:
        return client.submit_job(
            entrypoint=job.command,
            submission_id=f"{job.name}-{secrets.token_hex(3)}",
            runtime_env=job.environment,
            metadata=job.metadata,
        )
    except (RuntimeError, OSError, requests.RequestException) as error:
        # The error is the server's traceback; its last line is the reason.
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(f"{client.get_address()} did not accept the job: {reason[0].strip()}") from error


def _quiet() -> None:
    """Silence Ray's log messages about excluded and uploaded files."""
    # Only job.EXCLUDED decides what is left out.
    os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] = ""
    try:
        import ray.job_submission
    except ImportError as error:
        raise missing_module(error, "Ray's client for jobs cannot be imported") from error

    for name in ("", ".dashboard.modules.dashboard_sdk", ".dashboard.modules.job.sdk"):
        logging.getLogger(ray.__name__ + name).setLevel(logging.WARNING)


def connect(address: str | None) -> "JobSubmissionClient":
    """Raises: UserError when no cluster takes jobs there."""
    if address is None or not re.match(r"https?://[^/]", address) or address.count("[") != address.count("]"):
        raise UserError(f"--address: expected the cluster's dashboard, http://HOST:8265; got {address or 'none'}")
    if os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray's client prefers this one to its argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    keep_loopback_direct()
    # An address behind a proxy cannot be checked directly.
    if not proxy_for(address):
        _check_answers(address)
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise token_error(address) from error
    except (RuntimeError, ConnectionError, ValueError, KeyError, requests.RequestException) as error:
        raise UserError(f"{named(address)}: no Ray cluster there ({str(error).splitlines()[0]})") from error

    if proxy_for(address):
        _poll_logs(client)
    return client


def _poll_logs(client: "JobSubmissionClient") -> None:
    """Poll whole logs through the proxy: Ray's client ignores proxies when it tails a log."""

    async def whole_log(job_id: str) -> AsyncIterator[str]:
        yield await asyncio.to_thread(client.get_job_logs, job_id)

    client.tail_job_logs = whole_log


def _check_answers(address: str) -> None:
    """Raises: UserError when nothing listens there; Ray's client would wait for minutes."""
    try:
        url = urlsplit(address)
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{named(address)}: nothing listens there ({getattr(error, 'strerror', 0) or error})"
        ) from error


def running_job(client: "JobSubmissionClient", job: Job) -> str | None:
    """The job that runs this already, if any. Raises: UserError when its options are others, or the cluster does not answer."""
    try:
        jobs = client.list_jobs()
    except unreachable() as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"--address {client.get_address()}: does not list its jobs ({reason}); try again") from error
    for other in jobs:
        same = job.metadata.items() <= (other.metadata or {}).items()
        if same and not other.status.is_terminal():
            there, here = python_of(getattr(other, "runtime_env", None) or {}), python_of(job.runtime_env)
            if there != here or _without_take_over(other.entrypoint) != _without_take_over(job.command):
                raise UserError(
                    f"name: {job.name} is {job.doing} with other options, as job {other.submission_id}; choose another "
                    f"{job.named_by}, or stop it first: ray job stop --address {client.get_address()} {other.submission_id}"
                )
            return str(other.submission_id)
    return None


def _without_take_over(command: str) -> str:
    """The command without --take-over, which does not make it a different job."""
    return command.removesuffix(f" {TAKE_OVER}")
