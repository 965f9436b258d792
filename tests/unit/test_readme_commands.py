"""Every command of every README is one that its program takes; the streaming example runs as it is given."""

import re
import shlex
import subprocess
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from image_folders import make_dataset

from cluster.settings.options import parse_options
from data_shards.__main__ import main as data_shards
from data_shards.command_line import Verb

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in ROOT.glob("**/README.md") if not {".venv", "demo"} & set(page.relative_to(ROOT).parts))
PACKAGES = ("data_shards", "nla_cyclegan", "cluster", "tuning")
# A form that is filled in by the reader, not a command: the options of another verb, or a choice of verbs.
FORMS = ("OPTIONS OF", "VERB", " | ", "[--", " ...")
COMMAND = re.compile(r"^(?:\.venv/bin/)?python -m (\w+) +(.*)$")


def commands(page: Path) -> Iterator[str]:
    """The commands of a page's indented blocks, a line each, without comments."""
    text = page.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("    "):
            yield re.sub(r"\s+#.*$", "", line.strip())


ALL = [(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands(page) if COMMAND.match(line)]
GIVEN = [(page, line) for page, line in ALL if not any(form in line for form in FORMS)]


def test_the_pages_have_commands() -> None:
    assert len(GIVEN) > 25
    assert {page for page, _ in GIVEN} >= {
        "README.md",
        *(f"{name}/README.md" for name in ("data_shards", "cluster", "tuning")),
    }


@pytest.mark.parametrize(("page", "line"), GIVEN)
def test_a_command_is_one_that_its_program_takes(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    match = COMMAND.match(line.partition(">")[0])
    assert match
    package, (verb, *arguments) = match[1], shlex.split(match[2])
    assert package in PACKAGES
    verbs: dict[str, Verb] = import_module(f"{package}.__main__").VERBS
    module = import_module(verbs[verb].module)
    if hasattr(module, "add_arguments"):
        parser = ArgumentParser()
        module.add_arguments(parser)
        parser.parse_args(arguments)
    elif (package, verb) == ("cluster", "train"):
        # What the command before it writes.
        parse_options(["cluster/configs/demo.yaml" if each == "best.yaml" else each for each in arguments])
    else:
        assert hasattr(module, "main")


def test_the_streaming_example_runs_as_a_script(tmp_path: Path) -> None:
    """Without a guard: the loader processes do not run it again."""
    make_dataset(tmp_path, {"trainA": 20, "trainB": 20}, width=300, height=260)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "data_shards" / "README.md").read_text(), re.DOTALL)
    assert "s3://bucket/monet2photo" in example
    local = example.replace("s3://bucket/monet2photo", str(tmp_path / "shards"))
    script = tmp_path / "stream.py"
    # Until the loader processes read, which takes them a moment.
    take = "        print(tuple(batch.a.shape), flush=True)\n        if multiprocessing_children():\n            break"
    children = "from multiprocessing import active_children as multiprocessing_children\n"
    script.write_text(children + local.replace("        ...", take) + "\nprint('once')\n")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"(4, 3, 256, 256)", "once"}
    assert done.stdout.count("once") == 1
    assert done.stderr == ""


# What stands in the place of the pages' own, and the reason why the other verbs are not run here.
PLACES = {"IMAGES": "images", "DATASET": "shards", "s3://BUCKET/monet2photo": "shards", "s3://BUCKET/theirs": "theirs"}
RUN_HERE = ("pack", "inspect", "verify", "index")
NOT_HERE = {
    "data_shards": {
        "download": "fetches hundreds of MB",
        "bench": "measures for a minute; make slow runs the benchmarks",
    },
    "nla_cyclegan": dict.fromkeys(("translate", "evaluate", "export", "import-weights"), "needs trained weights"),
    "cluster": dict.fromkeys(
        ("train", "submit", "status", "compare", "copy", "remove"), "needs a run, hours, or a cluster"
    ),
    "tuning": dict.fromkeys(("sweep", "dashboard", "best", "results"), "needs a sweep, or hours"),
}


def test_each_command_is_run_or_listed() -> None:
    verbs = {(match[1], shlex.split(match[2])[0]) for _, line in GIVEN if (match := COMMAND.match(line))}
    listed = {(package, verb) for package, reasons in NOT_HERE.items() for verb in reasons}
    assert verbs <= listed | {("data_shards", verb) for verb in RUN_HERE}


@pytest.mark.slow
def test_commands_that_need_nothing_run_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path, {"trainA": 20, "trainB": 20})
    monkeypatch.chdir(tmp_path)
    for split, folder in (("trainA", "monet"), ("trainB", "photo")):
        (tmp_path / "theirs" / folder).mkdir(parents=True)
        with tarfile.open(tmp_path / "theirs" / folder / "0.tar", "w") as tar:
            for path in sorted((tmp_path / "images" / split).iterdir()):
                tar.add(path, f"{path.stem}.input.jpg")
    ran = set()
    for _, line in GIVEN:
        for there, here in PLACES.items():
            line = line.replace(there, here)
        verb, *arguments = shlex.split(line.partition("-m data_shards ")[2]) or [""]
        if verb in RUN_HERE:
            assert data_shards([verb, *arguments]) == 0, line
            ran.add(verb)
    assert ran == set(RUN_HERE)
    assert (tmp_path / "sheet.png").exists()
