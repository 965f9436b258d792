"""The runtime environment that a job is given: by options, by a file, and what is refused before anything is sent."""

import json
from pathlib import Path
from typing import Any

import pytest
from ray.runtime_env import RuntimeEnv

from cluster import submit
from cluster.jobs.job import EXCLUDED
from cluster.jobs.runtime_env import python_of, read_runtime_env
from cluster.jobs.submission import submit_parser
from data_shards.errors import UserError
from tuning import submit as submit_sweep

RUN = ("--storage", "s3://bucket/runs", "--data.uri", "s3://bucket/data", "--dry-run")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("requirements.txt").write_text("# all that we need\neinops==0.8  # arrays\n\nkornia @ https://host/k#egg=k\n")
    Path("nested.txt").write_text("-r requirements.txt\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    Path("env.yaml").write_text(
        "pip: [einops]\nenv_vars: {LEVEL: '3'}\nexcludes: ['*.log']\nconfig: {setup_timeout_seconds: 900}\n"
    )


def given(*arguments: str) -> dict[str, Any]:
    return read_runtime_env(submit_parser("", "", "", "").parse_args(arguments))


def as_json(**fields: Any) -> tuple[str, str]:
    return "--runtime-env-json", json.dumps(fields)


@pytest.mark.parametrize("kind", ["pip", "uv"])
def test_packages_and_files_of_them(kind: str) -> None:
    listed = ["einops==0.8", "kornia @ https://host/k#egg=k"]
    assert given(f"--{kind}", "timm", f"--{kind}", "requirements.txt") == {kind: ["timm", *listed]}
    assert given(*as_json(**{kind: "requirements.txt"})) == {kind: listed}
    whole = {"packages": ["timm"], f"{kind}_check": True}
    assert given(*as_json(**{kind: whole})) == {kind: whole}


def test_a_file_is_merged_with_what_submit_sets() -> None:
    environment = given("--runtime-env", "env.yaml")
    assert environment == {
        "pip": ["einops"], "env_vars": {"LEVEL": "3"}, "excludes": ["*.log"], "config": {"setup_timeout_seconds": 900},
    }  # fmt: skip
    excludes = environment.pop("excludes")
    modules = environment | {"py_modules": ["mine"]}
    job = submit.make_job(RUN[:-1]).with_environment(excludes, ["LEVEL=3", "MORE=x"], modules)
    assert job.environment["pip"] == ["einops"]
    assert job.environment["working_dir"] == str(job.folders[0])
    assert job.environment["py_modules"] == ["mine"]
    assert job.environment["excludes"] == [*EXCLUDED, "*.log"]
    assert job.environment["env_vars"].items() >= {"LEVEL": "3", "MORE": "x", "RAY_JOB_STOP_WAIT_TIME_S": "90"}.items()


def test_an_image_has_the_code() -> None:
    job = submit.make_job(RUN[:-1]).with_environment([], ["MORE=x"], given("--image", "registry/paint:1"))
    assert job.environment.keys() == {"image_uri", "env_vars"}
    assert job.folders == []


@pytest.mark.parametrize("verb", [submit, submit_sweep])
def test_the_plan_shows_it(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    preset = ["--preset", "placement"] if verb is submit_sweep else []
    assert verb.main([*RUN, *preset, "--runtime-env", "env.yaml"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["runtime"] == 'env {"pip": ["einops"], "config": {"setup_timeout_seconds": 900}}'
    assert "LEVEL=3" in lines["environment"]
    assert "einops" not in lines["command"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pip", "none.txt"), "pip: none.txt cannot be read (No such file or directory)"),
        (("--uv", "binary.txt"), "uv: binary.txt cannot be read (not a text file)"),
        (("--pip", "nested.txt"), "pip: -r requirements.txt is a file of this machine"),
        (("--pip", "dist/mine.whl"), "pip: dist/mine.whl is a file of this machine"),
        (("--pip", "a", "--uv", "b"), "pip and uv each choose a Python; give one of them"),
        (("--image", "a", *as_json(py_modules=["b"])), "Ray does not accept py_modules beside image_uri"),
        (("--runtime-env", "none.yaml"), "--runtime-env none.yaml: cannot be read"),
        (("--runtime-env", "env.yaml", "--pip", "x"), "--pip: the runtime environment has pip already"),
        (("--runtime-env", "env.yaml", *as_json()), "--runtime-env, --runtime-env-json: give one of them"),
        (("--runtime-env", "env.yaml", "--env", "LEVEL=4"), "--env LEVEL: is also set by env_vars of the runtime environment"),
        (("--runtime-env-json", "{pip"), "--runtime-env-json: not JSON"),
        (("--runtime-env-json", "[]"), "--runtime-env-json: expected an object, got list"),
        (as_json(working_dir="."), "working_dir is this project's code, which submit sends"),
        (as_json(pipp=["a"]), "pipp is not a field of it; did you mean pip?"),
        (as_json(pip={"packages": ["a"], "pipcheck": True}), "can only have these fields: packages, pip_check"),
        (("--pip", ""), "pip: no packages"),
        (("--image", ""), "argument --image: the value is empty (is a variable of the shell not set?)"),
        (as_json(pip=3), "pip: expected packages, or a file of them; got 3"),
        (as_json(excludes="*.log"), "excludes: expected a list, got '*.log'"),
        (as_json(env_vars={"A": 1}), "env_vars: expected NAME: text, got A: 1"),
        (as_json(config={"setup_timeout": 3}), "config.setup_timeout: no such field; allowed: eager_install, "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as caught:
        submit.main([*RUN, *arguments])
    (line,) = str(caught.value).splitlines()
    assert said in line


@pytest.mark.parametrize("kind", ["pip", "uv"])
def test_the_packages_of_a_job_are_those_that_it_was_given(kind: str) -> None:
    """Else the same command would not follow it."""
    for packages in (["einops", "timm==1"], {"packages": ["einops", "timm==1"], f"{kind}_check": True}):
        runtime_env = {kind: packages, "env_vars": {"A": "b"}}
        assert python_of(RuntimeEnv(**runtime_env).to_dict()) == python_of(runtime_env) == {kind: ["einops", "timm==1"]}
    assert python_of({"working_dir": "gcs://x", kind: None}) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        as_json(env_vars={"WANDB_API_KEY": "hidden"}),
        as_json(env_vars={"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=hidden"}),
        as_json(env_vars={"STORE": "http://me:hidden@store"}),
        ("--pip", "git+https://hidden@github.com/a/b"),
        ("--pip=--extra-index-url https://me:hidden@host/simple",),
        as_json(uv={"packages": ["a"], "uv_pip_install_options": ["--index-url", "https://me:hidden@host"]}),
        as_json(container={"image": "a", "run_options": ["--env API_TOKEN=hidden"]}),
    ],
)
def test_secrets_are_not_sent(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"looks like a secret.*`ray start`") as caught:
        submit.main([*RUN, *arguments])
    assert "hidden" not in str(caught.value)


def test_what_only_looks_like_one_is() -> None:
    packages = ["git+ssh://git@github.com/a/b", "tokenizers==0.22", "keyring>=25"]
    assert given(*(f"--pip={package}" for package in packages)) == {"pip": packages}
