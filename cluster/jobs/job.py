"""A command as a Ray job, with this project's code and an environment without secrets."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.machines.session import PACKAGES, ROOT
from cluster.records.trackers import names as tracker_names
from cluster.settings.config import has_credentials
from data_shards.errors import UserError, counted, say_warning

# In addition to .gitignore and .rayignore; git patterns, relative to the folder that is sent.
EXCLUDED = [
    *("/.git", "/.venv", "/venv", "/data", "/demo", "/runs", "/sweeps", "/build", "/wandb"),
    *(".env", ".env.*", ".netrc", "*.pem"),
    *("__pycache__", ".*_cache", "*.egg-info", "*.tar", "*.safetensors"),
]
# Addresses of stores and trackers, and network settings; nothing secret.
SENT = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
    *("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG"),
    *tracker_names.VARIABLES,
)
# How long `ray job stop` waits for a run or a sweep to save its checkpoints, before it kills it; Ray's default is 3 s.
STOP_WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": "90"}
# Fields of a runtime environment that name a container image.
IMAGES = ("image_uri", "container")
SECRET = re.compile(r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|CONNECTION_?STRING|(^|_)KEY", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """A command with its code and environment.

    Attributes:
        name: of the run or the sweep; the job's own name begins with it.
        metadata: the run or sweep and its storage: only one job of each may run.
        doing: what the job does while it runs, for messages.
        named_by: the option that would make it a different job.
        runtime_env: further fields of its runtime environment, see runtime_env.py.
    """

    name: str
    metadata: dict[str, str]
    command: str
    doing: str = "in training"
    named_by: str = "--name"
    excludes: list[str] = field(default_factory=lambda: EXCLUDED)
    variables: dict[str, str] = field(default_factory=lambda: variables_sent(()))
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    def with_environment(
        self, excludes: Sequence[str] = (), variables: Sequence[str] = (), runtime_env: Mapping[str, Any] | None = None
    ) -> "Job":
        """The job with further patterns of files to leave out, variables, NAME=VALUE each, and the rest of a runtime environment."""
        sent, environment = variables_sent(variables), runtime_env or {}
        return replace(self, excludes=[*EXCLUDED, *excludes], variables=sent, runtime_env=environment)

    @property
    def folders(self) -> list[Path]:
        """The folders that are sent: the checkout, or the packages of an installed project; none if an image is given.

        Never the caller's working directory, which may be a home folder with keys.
        """
        if not self.runtime_env.keys().isdisjoint(IMAGES):
            return []
        return [ROOT] if (ROOT / "pyproject.toml").exists() else [ROOT / name for name in PACKAGES]

    @property
    def environment(self) -> dict[str, Any]:
        """Ray's runtime environment. Its dashboard shows it, so nothing in it may be secret."""
        folders, modules = [str(folder) for folder in self.folders], list(self.runtime_env.get("py_modules", []))
        code: dict[str, Any] = {"excludes": self.excludes} if folders else {}
        if len(folders) == 1:
            code["working_dir"] = folders[0]
        else:
            modules += folders
        if modules:
            code["py_modules"] = modules
        return {**self.runtime_env, **code, "env_vars": STOP_WAIT | self.variables}


def variables_sent(variables: Sequence[str]) -> dict[str, str]:
    """Environment variables for the job: those of SENT, and the given ones, NAME=VALUE each; see `variable_problems`."""
    here = {name: os.environ[name] for name in SENT if name in os.environ}
    return here | {name: value for name, _, value in (variable.partition("=") for variable in variables)}


def variable_problems(variables: Sequence[str]) -> Iterator[str]:
    """What is wrong with the variables of a job, given as NAME=VALUE or in this process, a line for each."""
    for variable in variables:
        name, equals, _ = variable.partition("=")
        if not equals or not name.isidentifier():
            yield f"--env {name}: expected NAME=VALUE"
    for name, value in variables_sent(variables).items():
        if SECRET.search(name) or has_credentials(value):
            yield (
                f"{name}: looks like a secret, and Ray shows a job's environment to everyone who sees its dashboard; "
                "set it in the environment of `ray start` on the cluster's machines (Kubernetes: envFrom a Secret)"
            )


def package_size(job: Job) -> tuple[int, int]:
    """Bytes and number of the files that Ray would send. Raises: UserError when Ray refuses that size."""
    from cluster.machines.ray_internals import working_dir_files

    files, limit = working_dir_files(job.folders, job.excludes)
    packages = [ROOT / name for name in PACKAGES] if job.folders else []
    if left_out := sorted({module for package in packages for module in package.rglob("*.py")} - set(files)):
        say_warning(
            f"{counted(len(left_out), 'module')} of the project will not be sent, such as {left_out[0].relative_to(ROOT)}: "
            "a pattern of .gitignore, .rayignore or --exclude matches"
        )
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[file.relative_to(ROOT).parts[0]] += file.stat().st_size
    # Ray's archive is not compressed.
    total = sizes.total()
    if total >= limit:
        largest = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.most_common(3))
        raise UserError(
            f"{ROOT}: {total / 1e6:,.0f} MB would be sent, Ray accepts up to {limit / 1e6:,.0f} MB; "
            f"leave out what is not needed there with --exclude (largest: {largest})"
        )
    return total, len(files)
