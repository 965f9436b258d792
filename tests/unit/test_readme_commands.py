"""Every command of every README is one that its program takes; the streaming example runs as it is given."""

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from image_folders import make_dataset, make_folder

from cluster.settings.options import parse_options
from cluster.translation.options import parse as parse_translation
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


@pytest.mark.parametrize("package", PACKAGES)
def test_the_first_page_lists_every_verb(package: str) -> None:
    (listed,) = re.findall(rf"^    python -m {package} +(\w+ \|.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed.split(" | ")) == sorted(import_module(f"{package}.__main__").VERBS)


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
    elif (package, verb) == ("cluster", "translate"):
        parse_translation(arguments)
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
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"(4, 3, 256, 256)", "once"}
    assert done.stdout.count("once") == 1
    assert done.stderr == ""


# What stands in the place of the pages' own.
PLACES = {
    # What the sweep here has repeats of.
    "--collapse seed": "--collapse schedule.constant",
    **{"s3://BUCKET/": "", "s3://bucket/": "", "DATASET": "monet2photo", "demo/synthetic-128px/shards": "monet2photo"},
    **{"MONETS": "images/testA", "PHOTOS": "images/testB", "TRAIN": "images/trainA", "IMAGES": "images"},
    **{"RUN RUN": "runs/adam runs/nadam", "RUN ": "runs/adam ", "remove  RUN": "remove runs/adam", "latest_net_G.pth": "latest_net_G_B.pth"},
}  # fmt: skip
TINY = [
    "--local",
    "--data.uri=monet2photo",
    "--schedule.images=4",
    "--data.load_size=36",
    "--data.crop_size=32",
    "--data.global_batch=4",
    "--observe.previews=none",
    "--data.loader_workers=0",
    "--scaling.workers=1",
    "--validation.every=none",
    "--step.micro_batch=none",
    "--name",
]
# What is added to a verb's arguments so that it runs here, in seconds.
SMALL = {
    ("cluster", "remove"): ["--yes"],
    ("cluster", "submit"): ["--dry-run"],
    ("tuning", "sweep"): ["--dry-run", "--name", "another"],
}
NOT_HERE = {
    "data_shards download": "fetches hundreds of MB",
    "data_shards bench": "measures for minutes; make slow runs the benchmarks",
    "nla_cyclegan show": "serves until Ctrl-C; tests/browser/test_show_page.py uses it",
    "--watch": "does not end",
    "--train-images": "needs Inception's weights; tests/unit/nla_cyclegan/commands/test_evaluate.py has a stand-in",
}


def is_run_here(line: str) -> bool:
    return not any(words in line for words in NOT_HERE)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with images, runs, a sweep and weights under the pages' names for them."""
    archive = next((ROOT / "tests" / "compatibility").glob("*.tar.xz"))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    make_folder(tmp_path / "images", {"trainA": 20, "trainB": 20, "testA": 8, "testB": 8})
    shutil.copytree(tmp_path / "images" / "testB", tmp_path / "photos")
    for name in ("runs/monet", "runs/adam", "runs/nadam"):
        shutil.copytree(tmp_path / "runs" / "run", tmp_path / name)
    for name in ("sweeps/first", "sweeps/second", "demo/sweeps/demo"):
        shutil.copytree(tmp_path / "sweeps" / "sweep", tmp_path / name)
    for split, folder in (("trainA", "monet"), ("trainB", "photo")):
        (tmp_path / "theirs" / folder).mkdir(parents=True)
        with tarfile.open(tmp_path / "theirs" / folder / "0.tar", "w") as tar:
            for path in sorted((tmp_path / "images" / split).iterdir()):
                tar.add(path, f"{path.stem}.input.jpg")
    # From where the pages' commands are given: the checkout.
    for folder in ("cluster", "tuning"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "demo" / "synthetic-128px").mkdir()
    (tmp_path / "demo" / "synthetic-128px" / "shards").symlink_to(tmp_path / "monet2photo")
    (tmp_path / "photos.txt").write_text("".join(f"photos/{path.name}\n" for path in (tmp_path / "photos").iterdir()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_run_as_given_at_a_tiny_size(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: set[tuple[str, str]] = set()
    # Each page's in its order; what deletes a run comes last.
    lines = sorted(dict.fromkeys(line for _, line in GIVEN if is_run_here(line)), key=lambda line: " remove " in line)
    for number, line in enumerate(lines):
        match = COMMAND.match(line)
        assert match
        package, verb = match[1], shlex.split(match[2])[0]
        text, _, target = match[2].partition(" > ")
        if (package, verb) != ("cluster", "submit"):
            for there, here in PLACES.items():
                text = text.replace(there, here)
            text = text.replace("DEST", f"pair-{number}").replace(
                "SHARDS", "shards" if verb == "pack" else "monet2photo"
            )
        tiny = [option for option in TINY if "--data.a" not in text or not option.startswith("--data.uri")]
        more = [*tiny, f"tiny-{number}"] if (package, verb) == ("cluster", "train") else SMALL.get((package, verb), [])
        capsys.readouterr()
        status = import_module(f"{package}.__main__").main([*shlex.split(text), *more])
        said = capsys.readouterr()
        assert status == 0, (line, said.err)
        if target:
            (written / target).write_text(said.out)
        ran.add((package, verb))
    verbs = {(match[1], shlex.split(match[2])[0]) for _, line in GIVEN if (match := COMMAND.match(line))}
    assert verbs - ran == {("data_shards", "download"), ("data_shards", "bench"), ("nla_cyclegan", "show")}
    for file in ("sheet.png", "grid.png", "monet.onnx", "kept/monet/run.json", "painted"):
        assert (written / file).exists(), file
    assert not (written / "runs" / "adam").exists()
