"""The runtime environment of a job in addition to this project's code: pip or uv packages, or an image."""

import argparse
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.jobs.job import IMAGES, SECRET
from cluster.settings.config import has_credentials
from cluster.settings.yaml_file import read_yaml
from data_shards.command_line import filled
from data_shards.errors import UserError

# Fields that Ray accepts, except those that `submit` itself sets.
FIELDS = (
    *("pip", "uv", "conda", "image_uri", "container", "py_executable"),
    *("env_vars", "excludes", "py_modules", "config", "worker_process_setup_hook", "nsight", "rocprof_sys"),
)
KINDS = {"excludes": list, "py_modules": list, "env_vars": dict, "config": dict, "image_uri": str}
# Fields that choose the Python interpreter.
PYTHONS = ("pip", "uv", "conda", "image_uri", "container", "py_executable")
# Everything else, including the code, is in the image.
BESIDE_AN_IMAGE = {"env_vars", "config"}
ARCHIVES = (".whl", ".zip", ".tar.gz")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options are those of `ray job submit`, and one for each kind of Python."""
    environment = parser.add_argument_group("runtime environment, which Ray makes on each machine for this job alone")
    environment.add_argument("--runtime-env", type=filled, metavar="FILE", help="Ray's runtime_env, as YAML or JSON")
    environment.add_argument("--runtime-env-json", type=filled, metavar="JSON", help="the same, written here")
    for name in ("pip", "uv"):
        about = f"install this by {name}: einops==0.8, requirements.txt"
        environment.add_argument(f"--{name}", metavar="PACKAGE | FILE", action="append", help=about)
    environment.add_argument(
        "--image", type=filled, metavar="URI", help="run in this container image, which has this project; by podman"
    )


def read_runtime_env(options: argparse.Namespace) -> dict[str, Any]:
    """The runtime environment that the options give; files are read, `excludes` is a list, `env_vars` a mapping of strings.

    Raises: UserError with a line for each problem.
    """
    given = _given(options)
    problems = list(_problems(given))
    if problems:
        raise UserError("\n".join(problems))
    for name in ("pip", "uv"):
        if name in given:
            given[name] = _with_packages(name, given[name])
    return given


def python_of(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that choose the Python interpreter, from a runtime environment as given or as Ray describes it."""
    chosen = {name: runtime_env[name] for name in PYTHONS if runtime_env.get(name)}
    # Ray converts a list to a mapping.
    return {name: value.get("packages", value) if isinstance(value, dict) else value for name, value in chosen.items()}


def _given(options: argparse.Namespace) -> dict[str, Any]:
    if options.runtime_env and options.runtime_env_json:
        raise UserError("--runtime-env, --runtime-env-json: give one of them")
    given: dict[str, Any] = {}
    if options.runtime_env:
        given = read_yaml(options.runtime_env, dotted=FIELDS, option="--runtime-env")
    elif options.runtime_env_json:
        try:
            given = json.loads(options.runtime_env_json)
        except ValueError as error:
            raise UserError(f"--runtime-env-json: not JSON ({error})") from error
        if not isinstance(given, dict):
            raise UserError(f"--runtime-env-json: expected an object, got {type(given).__name__}")
    for name, field in (("pip", "pip"), ("uv", "uv"), ("image", "image_uri")):
        value = getattr(options, name)
        if value and field in given:
            raise UserError(f"--{name}: the runtime environment has {field} already; give it in one place")
        given |= {field: value} if value else {}
    return given


def _problems(given: Mapping[str, Any]) -> Iterator[str]:
    for name in given:
        if name == "working_dir":
            yield "runtime environment: working_dir is this project's code, which submit sends; leave it out"
        elif name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            yield f"runtime environment: {name} is not a field of it; " + (
                f"did you mean {near[0]}?" if near else f"allowed: {', '.join(FIELDS)}"
            )
    pythons = [name for name in PYTHONS if name in given]
    if len(pythons) > 1:
        yield f"runtime environment: {' and '.join(pythons)} each choose a Python; give one of them"
    if image := next((name for name in IMAGES if name in given), None):
        others = sorted(given.keys() - BESIDE_AN_IMAGE - set(IMAGES))
        if others and len(pythons) == 1:
            yield f"runtime environment: Ray does not accept {', '.join(others)} beside {image}; put it into the image"
    for name, kind in KINDS.items():
        if name in given and not isinstance(given[name], kind):
            yield f"runtime environment: {name}: expected a {kind.__name__}, got {given[name]!r}"
        elif kind is list and not all(isinstance(each, str) for each in given.get(name, [])):
            yield f"runtime environment: {name}: expected a list of text, got {given[name]!r}"
    variables = given.get("env_vars")
    if isinstance(variables, dict):
        for name, value in variables.items():
            if not name.isidentifier() or not isinstance(value, str):
                yield f"runtime environment: env_vars: expected NAME: text, got {name}: {value!r}"
    for name in given.keys() - {"env_vars"}:
        if any(map(_has_secret, _texts(given[name]))):
            yield (
                f"runtime environment: {name} has what looks like a secret, and Ray shows it to everyone who sees its dashboard; set it "
                "on the cluster's machines: PIP_INDEX_URL or UV_INDEX_URL in the environment of `ray start`, or in ~/.netrc"
            )


def _with_packages(name: str, value: Any) -> Any:
    """`pip` or `uv` with requirements files replaced by their packages. Raises: UserError."""
    packages = value.get("packages") if isinstance(value, dict) else value
    if not isinstance(packages, str | list) or not all(isinstance(each, str) for each in packages):
        raise UserError(f"runtime environment: {name}: expected packages, or a file of them; got {value!r}")
    given = [packages] if isinstance(packages, str) else packages
    listed = [line for package in given for line in _lines(name, package, is_file=isinstance(packages, str))]
    if not listed or "" in listed:
        raise UserError(f"runtime environment: {name}: no packages")
    for line in listed:
        if _is_only_here(line):
            raise UserError(
                f"runtime environment: {name}: {line} is a file of this machine; give an address or a path that all machines reach, "
                "or ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/PATH, inside the code that is sent"
            )
    return {**value, "packages": listed} if isinstance(value, dict) else listed


def _lines(name: str, package: str, *, is_file: bool) -> Sequence[str]:
    """The package, or those of the requirements file of that name."""
    file = Path(package).expanduser()
    looks_like_one = file.suffix in (".txt", ".in") or is_file
    if package.endswith(ARCHIVES) or not (file.is_file() or looks_like_one):
        return [package]
    try:
        lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"runtime environment: {name}: {package} cannot be read ({reason})") from error
    return [line for line in lines if line]


def _is_only_here(line: str) -> bool:
    """Whether the requirement names a file of this machine."""
    path = re.sub(r"^(-r|-c|-e|--requirement|--constraint|--editable|-f|--find-links)[ =]*", "", line)
    is_option, is_archive = path != line, path.endswith(ARCHIVES)
    if "://" in path or path.startswith(("/", "$")):
        return False
    return path.startswith((".", "~")) or is_archive or is_option


def _has_secret(text: str) -> bool:
    """Whether it is an address with a user's name or more in it, or sets a variable of a container to a secret."""
    user = re.search(r"://([^/@\s]+)@", text)
    variable = re.match(r"(?:--env[= ]|-e ?)?(\w+)=(?!=)", text)
    is_secret = variable is not None and SECRET.search(variable[1]) is not None
    return has_credentials(text) or is_secret or (user is not None and user[1] != "git")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(each)


def check_by_ray(given: Mapping[str, Any]) -> None:
    """Raises: UserError if Ray rejects the environment, which its client checks only after the upload."""
    from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

    # Ray only logs unknown fields.
    if unknown := set(given.get("config", {})) - RuntimeEnvConfig.known_fields:
        known = ", ".join(sorted(RuntimeEnvConfig.known_fields))
        raise UserError(f"runtime environment: config.{min(unknown)}: no such field; allowed: {known}")
    try:
        RuntimeEnv(**given)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"runtime environment: {' '.join(str(error).split())}") from error
