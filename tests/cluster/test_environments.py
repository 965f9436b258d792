"""Real Ray in the environments that machines have: each of them trains, or says in a line what is in its way; nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
OTHER = 54321
FINISHED = "tiny has finished: 48 images seen"
AGAIN = "give the same command again"
# Before and after the command: as root in a mount namespace, or without root's right to read what is others'.
MOUNTED = ["unshare", "--mount", "sh", "-c", '{mounts} && exec "$@"', "sh"]
NO_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
root_only = pytest.mark.skipif(os.getuid() != 0, reason="mounts and files of another user are made by root alone")


@dataclass
class Place:
    """Where a command runs."""

    temporary: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    processes: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def module(self, name: str, text: str) -> None:
        """Let Python find this in place of, or before, another module."""
        shadow = self.folder / "shadow"
        shadow.mkdir(exist_ok=True)
        (shadow / f"{name}.py").write_text(text)
        self.environment["PYTHONPATH"] = f"{shadow}{os.pathsep}{ROOT}"

    def mount(self, mounts: str) -> None:
        self.before = [part.format(mounts=mounts) for part in MOUNTED]


def no_module(name: str) -> Callable[[Place], None]:
    return lambda place: place.module("sitecustomize", f"import sys\nsys.modules[{name!r}] = None\n")


def variables(**given: str) -> Callable[[Place], None]:
    return lambda place: place.environment.update(given)


def first_users_files(place: Place) -> None:
    for name in ("ray", "ray-train", "pymp-x", f"torchinductor_{os.environ.get('USER', 'root')}"):
        (place.temporary / name).mkdir(mode=0o700)
        os.chown(place.temporary / name, OTHER, OTHER)
    place.before = NO_RIGHTS


def unwritable_folder(place: Place) -> None:
    place.temporary.chmod(0o555)
    os.chown(place.temporary, OTHER, OTHER)
    place.before = NO_RIGHTS


def long_name(place: Place) -> None:
    long = place.folder / ("x" * 80)
    long.mkdir()
    place.environment["TMPDIR"] = str(long)


def long_name_without_ray(place: Place) -> None:
    long_name(place)
    place.options = ["--local", "--data.loader_workers", "1"]


def behind_a_proxy(place: Place) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        place.environment |= {name: "http://127.0.0.1:9", name.upper(): "http://127.0.0.1:9"}


def one_core(place: Place) -> None:
    place.before = ["taskset", "--cpu-list", "0"]


def no_name(place: Place) -> None:
    """As in containers whose user is a number."""
    place.mount("mount --bind /dev/null /etc/passwd")
    place.environment |= {"USER": "", "LOGNAME": "", "LNAME": "", "USERNAME": ""}


ENVIRONMENTS = {
    "plain": (lambda place: None, FINISHED),
    "another user was first": pytest.param(first_users_files, FINISHED, marks=root_only),
    "temporary folder that cannot be written": pytest.param(unwritable_folder, FINISHED, marks=root_only),
    "user without a name": pytest.param(no_name, FINISHED, marks=root_only),
    "proxies": (behind_a_proxy, FINISHED),
    "one core": (one_core, FINISHED),
    "little shared memory": pytest.param(
        lambda place: place.mount("mount -t tmpfs -o size=1m tmpfs /dev/shm"), FINISHED, marks=root_only
    ),
    "full temporary folder": pytest.param(
        lambda place: place.mount(f"mount -t tmpfs -o size=60k tmpfs {place.temporary}"),
        "no room in the temporary folder",
        marks=root_only,
    ),
    "long name of the temporary folder": (long_name, "too long for the sockets of Ray"),
    "long name, no Ray": (long_name_without_ray, "too long for the sockets of loader processes"),
    "RAY_TMPDIR that is not there": (variables(RAY_TMPDIR="/no/such/folder"), "no temporary folder for Ray"),
    "no click": (no_module("click"), "click"),
    "click that fails": (
        lambda place: place.module("click", "raise ModuleNotFoundError(\"No module named 'click'\")"),
        "No module named 'click'; install",
    ),
    "no Ray": (no_module("ray"), "Ray cannot be imported"),
    "no torch": (no_module("torch"), "torch"),
    "old Ray": (no_module("ray.train.v2.api.data_parallel_trainer"), "lacks what this project uses of it"),
    "nobody at the address": (variables(RAY_ADDRESS="127.0.0.1:9"), "no Ray cluster there (Connection refused)"),
    "an address of another kind": (variables(RAY_ADDRESS="ray://127.0.0.1:10001"), "expected HOST:PORT"),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    # Not below pytest's folder, whose name would be too long for sockets.
    temporary = Path("/tmp", f"env-{os.getpid()}-{time.monotonic_ns() % 10**6}")
    temporary.mkdir()
    temporary.chmod(0o1777)
    place = Place(temporary, tmp_path, {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)})
    yield place
    # Of a test that failed.
    for process in place.processes:
        process.kill()
    subprocess.run(["rm", "-rf", str(temporary)], check=True)


def command(place: Place, **changes: object) -> list[str]:
    settings = tiny.settings(tiny.pack_dataset(place.folder), place.folder / "runs", scaling={"workers": 1}, **changes)
    (place.folder / "run.yaml").write_text(yaml.safe_dump(settings))
    train = ["-m", "cluster", "train", "--config", str(place.folder / "run.yaml"), *place.options]
    return [*place.before, sys.executable, *train]


def started(place: Place, arguments: list[str]) -> "subprocess.Popen[str]":
    # Of pytest's own environment only what others have too.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TORCH", "PYTEST"))}
    process = subprocess.Popen(
        arguments,
        env=inherited | place.environment,
        cwd=place.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    place.processes.append(process)
    return process


def ours(place: Place) -> list[str]:
    """What lies among the temporary files, but for another user's."""
    return [each.name for each in place.temporary.iterdir() if each.stat().st_uid != OTHER]


@pytest.mark.parametrize(("prepare", "said"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_it_trains_or_says_what_is_in_its_way(place: Place, prepare: Callable[[Place], None], said: str) -> None:
    prepare(place)
    process = started(place, command(place))
    output, _ = process.communicate(timeout=300)
    assert said in output, output[-6000:]
    if said == FINISHED:
        assert process.returncode == 0
    else:
        assert process.returncode == 2
        assert sum(line.startswith("error: ") for line in output.splitlines()) == 1
        assert "Traceback" not in output
        assert AGAIN not in output
    assert ours(place) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_is_left_of_a_run_that_a_signal_ends(place: Place, number: signal.Signals, status: int) -> None:
    process = started(place, command(place, schedule={"images": 40_000}, data={"loader_workers": 1}))
    assert process.stdout
    # Of the records of half a second the newest alone is shown.
    assert any(re.match(r"tiny: \d+ of ", line) for line in process.stdout), "it ended by itself"
    assert ours(place)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == status
    give_up = time.monotonic() + 120
    while ours(place) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert ours(place) == []


@pytest.mark.parametrize("arguments", [["sweep"], ["sweep", "--concurrent=2"]])
def test_nothing_is_left_of_a_sweep(place: Place, arguments: list[str]) -> None:
    command(place)
    sweep = ["--train", str(place.folder / "run.yaml"), "--name", "few", "--storage", str(place.folder / "sweeps")]
    process = started(
        place,
        [
            sys.executable,
            "-m",
            "tuning",
            *arguments,
            *sweep,
            "--trials",
            "2",
            "--validation.every",
            "16",
            "--validation.images",
            "4",
            '--space={"optimizer.lr": {"choice": [1e-4, 2e-4]}}',
        ],
    )
    with suppress(subprocess.TimeoutExpired):
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-6000:]
    assert ours(place) == []
