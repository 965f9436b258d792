"""`python -m cluster submit`: send a run to a cluster as a Ray job, with this project's code, and follow its log."""

import argparse
import asyncio
import logging
import os
import re
import secrets
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.machines.follow import INTERRUPTED, follow, follow_commands
from cluster.machines.session import PACKAGES, ROOT
from cluster.records.recorded_run import flat
from cluster.settings.config import RunConfig, has_credentials
from cluster.settings.options import Parser, option_text, parse_options
from cluster.settings.preflight import relative_paths
from data_shards.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

USAGE = "python -m cluster submit [--address URL] [--no-wait] [--dry-run] [--exclude PATTERN] [--env NAME=VALUE] TRAIN OPTIONS"
TRAIN_HELP = (
    "Every other option is one of the run: --config, --data.uri, --scaling.workers, ...: see python -m cluster train "
    "--help. Credentials are not sent: they belong in the environment of the cluster's machines, or in their role."
)
# Beside what .gitignore and .rayignore name. Patterns of git, seen from the folder that is sent.
EXCLUDED = [
    *("/.git", "/.venv", "/venv", "/data", "/demo", "/runs", "/sweeps", "/build", ".env", ".env.*", ".netrc", "*.pem"),
    *("__pycache__", ".*_cache", "*.egg-info", "*.tar", "*.safetensors"),
]
# What a store needs to be found, or a network to be used; nothing that is secret.
SENT = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
    *("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG"),
)
SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|(^|_)KEY", re.IGNORECASE)
CONNECT_S = 10.0


@dataclass(frozen=True)
class Job:
    """A run as a job: what is started, with which code, in which environment.

    Attributes:
        metadata: which run it is: its name and storage.
    """

    metadata: dict[str, str]
    command: str
    excludes: list[str]
    variables: dict[str, str]

    @property
    def folders(self) -> list[Path]:
        """What is sent: a checkout as it is, of an installed project its packages.

        Not the folder of the caller, which may be a home with keys in it.
        """
        return [ROOT] if (ROOT / "pyproject.toml").exists() else [ROOT / name for name in PACKAGES]

    @property
    def environment(self) -> dict[str, Any]:
        """Ray's runtime environment. Its dashboard shows it, so nothing in it may be secret."""
        folders = [str(folder) for folder in self.folders]
        code = {"working_dir": folders[0]} if len(folders) == 1 else {"py_modules": folders}
        return {**code, "excludes": self.excludes, "env_vars": self.variables}


def main(arguments: Sequence[str]) -> int:
    """The exit status of the job; 0 where it is not waited for; 130 after Ctrl-C.

    Raises: UserError with a line for each problem, before anything is sent.
    """
    options, of_the_run = _parser().parse_known_args([argument for argument in arguments if argument != "--"])
    job = make_job(of_the_run, options.exclude, options.env)
    _quiet()
    size, count = package_size(job)
    sent = f"{count} files, {size / 1e6:.1f} MB, of {ROOT}"
    if options.dry_run:
        variables = " ".join(f"{name}={value}" for name, value in job.variables.items())
        print(f"{'command':<12}{job.command}\n{'sent':<12}{sent}\n{'environment':<12}{variables or '-'}")
        return 0
    client = connect(options.address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS"))
    job_id = running_job(client, job)
    status = "is in training already; nothing was sent" if job_id else f"submitted ({sent})"
    job_id = job_id or client.submit_job(
        entrypoint=job.command,
        submission_id=f"{job.metadata['run']}-{secrets.token_hex(3)}",
        runtime_env=job.environment,
        metadata=job.metadata,
    )
    try:
        print(f"{job_id}: {status}", file=sys.stderr)
        if not options.no_wait:
            return asyncio.run(follow(client, job_id))
    except KeyboardInterrupt:
        # Before `follow` handles it.
        print(follow_commands(client.get_address(), job_id), file=sys.stderr)
        return INTERRUPTED
    print(job_id)
    print(follow_commands(client.get_address(), job_id), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m cluster submit",
        usage=USAGE,
        description="Send a run to a Ray cluster and follow its log; the same command again follows a run in training. "
        "Ctrl-C leaves the log, a second one at once stops the run.",
        epilog=TRAIN_HELP,
        allow_abbrev=False,
    )
    parser.add_argument("--address", metavar="URL", help="the cluster's http://HOST:8265 (default: RAY_ADDRESS)")
    parser.add_argument("--no-wait", action="store_true", help="print the job's name and return")
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and exit")
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="also leave these files out; as in .gitignore"
    )
    parser.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable for the run; nothing secret"
    )
    return parser


def make_job(of_the_run: Sequence[str], excludes: Sequence[str] = (), variables: Sequence[str] = ()) -> Job:
    """Check a run before anything is sent. Raises: UserError."""
    options = parse_options(of_the_run)
    problems = relative_paths(options.config)
    if options.local:
        problems.append("--local: trains in this process: python -m cluster train --local")
    given = {name: os.environ[name] for name in SENT if name in os.environ}
    for variable in variables:
        name, equals, given[name] = variable.partition("=")
        if not equals or not name.isidentifier():
            problems.append(f"--env {name}: expected NAME=VALUE")
    problems += [_looks_secret(name) for name, value in given.items() if SECRET.search(name) or has_credentials(value)]
    if problems:
        raise UserError("\n".join(problems))
    command = shlex.join(["python", "-m", "cluster", "train", *as_options(options.config)])
    metadata = {"run": options.config.name, "storage": options.config.storage}
    return Job(metadata, command, [*EXCLUDED, *excludes], given)


def _quiet() -> None:
    """Keep Ray from logging what it excludes and uploads."""
    # EXCLUDED says what is left out.
    os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] = ""
    import ray.job_submission

    for name in ("", ".dashboard.modules.dashboard_sdk", ".dashboard.modules.job.sdk"):
        logging.getLogger(ray.__name__ + name).setLevel(logging.WARNING)


def _looks_secret(name: str) -> str:
    return (
        f"{name}: looks like a secret, and Ray shows a job's environment to everyone who sees its dashboard; "
        "set it in the environment of the cluster's machines"
    )


def as_options(config: RunConfig) -> list[str]:
    """Options of `train` that say the same as a configuration, whatever files it came from."""
    fields = flat(config.model_dump(mode="json", exclude_defaults=True))
    return [f"--{name}={option_text(value)}" for name, value in fields.items()]


def package_size(job: Job) -> tuple[int, int]:
    """Bytes and number of the files that Ray would send. Raises: UserError when Ray refuses that size."""
    from cluster.machines.ray_internals import working_dir_files

    files, limit = working_dir_files(job.folders, job.excludes)
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[file.relative_to(ROOT).parts[0]] += file.stat().st_size
    # It zips without compression.
    total = sizes.total()
    if total >= limit:
        largest = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.most_common(3))
        raise UserError(
            f"{ROOT}: {total / 1e6:,.0f} MB would be sent, Ray accepts up to {limit / 1e6:,.0f} MB; "
            f"leave out what the run does not need with --exclude (largest: {largest})"
        )
    return total, len(files)


def connect(address: str | None) -> "JobSubmissionClient":
    """Raises: UserError when no cluster takes jobs there."""
    if address is None or not re.match(r"https?://[^/]", address):
        raise UserError(f"--address: expected the cluster's dashboard, http://HOST:8265; got {address or 'none'}")
    if os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray's client prefers this one to its argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    _check_answers(address)
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(
            f"--address {address}: the cluster requires its token, and "
            f"{'the one in RAY_AUTH_TOKEN is wrong' if os.environ.get('RAY_AUTH_TOKEN') else 'none was given'}; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on the cluster's machines"
        ) from error
    except (RuntimeError, ConnectionError, ValueError, KeyError, requests.RequestException) as error:
        raise UserError(f"--address {address}: no Ray cluster there ({str(error).splitlines()[0]})") from error


def _check_answers(address: str) -> None:
    """Raises: UserError when nothing listens there; Ray's client would wait for minutes."""
    try:
        url = urlsplit(address)
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--address {address}: nothing listens there ({getattr(error, 'strerror', 0) or error})"
        ) from error


def running_job(client: "JobSubmissionClient", job: Job) -> str | None:
    """The job that trains this run already, if any. Raises: UserError when its options are others."""
    for other in client.list_jobs():
        same = job.metadata.items() <= (other.metadata or {}).items()
        if same and not other.status.is_terminal():
            if other.entrypoint != job.command:
                raise UserError(
                    f"name: {job.metadata['run']} is in training with other options, as job {other.submission_id}; choose another "
                    f"--name, or stop it first: ray job stop --address {client.get_address()} {other.submission_id}"
                )
            return str(other.submission_id)
    return None
