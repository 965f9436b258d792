"""The files of cluster/deploy/ against what reads them: Ray's autoscaler, KubeRay, Slurm's shell, this project's parser."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from cluster import submit
from cluster.jobs import submission
from cluster.jobs.final_errors import VARIABLE
from cluster.jobs.job import STOP_WAIT
from cluster.machines.device import OLDEST
from cluster.settings.config import RunConfig
from cluster.settings.options import parse_options
from cluster.settings.workers.capacity import Machine, places
from cluster.settings.workers.resources import choose

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "cluster" / "deploy"
FIELDS = Path(__file__).with_name("rayjob_fields.yaml")
CLOUDS = {"aws": "s3", "gcp": "gs"}
TYPES = {"string": str, "integer": int, "boolean": bool, "number": (int, float), "quantity": (str, int)}


def load(name: str) -> dict[str, Any]:
    """The last document of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))[-1]


def commands(file: Path, verb: str) -> list[list[str]]:
    """Arguments of each `python -m cluster VERB` in a file; continued lines are one, comment signs are left out."""
    text = re.sub(r"\\\n[#\s]*", " ", file.read_text())
    return [shlex.split(found, comments=True) for found in re.findall(rf"python -m cluster {verb} ([^\n]*)", text)]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_up_takes_the_file(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    config = prepare_config(load(f"{cloud}.yaml"))
    validate_config(config)
    head, worker = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert config["head_node_type"] == "head"
    assert (worker["min_workers"], worker["max_workers"], config["max_workers"]) == (0, 8, 8)
    assert worker["resources"]["GPU"] == 1
    assert "SPOT" in str(worker["node_config"]).upper()
    assert "SPOT" not in str(head["node_config"]).upper()
    # Not one account for both: a worker cannot start machines.
    account = {"aws": "IamInstanceProfile", "gcp": "serviceAccounts"}[cloud]
    assert head["node_config"][account] != worker["node_config"][account]
    for here in config["file_mounts"].values():
        assert here.startswith("~") or (ROOT / here).exists()
    # Set in the container: every command in it sees it.
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    # Ray's own start commands open the dashboard to all.
    assert "dashboard-host" not in str(config["head_start_ray_commands"])


def test_ray_up_refuses_what_is_not_in_its_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(load("aws.yaml") | {"idle_timeout": 5}))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_setup_command_lists_the_dependencies(cloud: str, tmp_path: Path) -> None:
    """The part before pip, on this machine."""
    (command,) = load(f"{cloud}.yaml")["setup_commands"]
    command = command.replace("/home/ray/project", str(ROOT)).replace("/tmp/requirements.txt", f"{tmp_path}/list")
    command, and_, pip = command.rpartition("&&")
    assert (and_, pip.split()[:2]) == ("&&", ["pip", "install"])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "PATH": path})
    assert {"torch", "ray[data,default,train,tune]", "webdataset"} <= {
        re.split("[<>=!]", line)[0] for line in (tmp_path / "list").read_text().splitlines()
    }


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_submission_in_the_comment_is_accepted(cloud: str) -> None:
    (arguments,) = commands(DEPLOY / f"{cloud}.yaml", "submit")
    assert arguments[:2] == ["--address", "http://127.0.0.1:8265"]
    job = submit.make_job(arguments[2:])
    assert f"--storage={CLOUDS[cloud]}://BUCKET/runs" in job.command
    node_types = load(f"{cloud}.yaml")["available_node_types"]
    head, worker = (node_types[name]["resources"] for name in ("head", "gpu"))
    starts_from_the_head_and_fills_the_rest(
        parse_options(arguments[2:]).config, head, worker, node_types["gpu"]["max_workers"]
    )
    assert "--scaling.workers=2,8" in job.command


def starts_from_the_head_and_fills_the_rest(
    config: RunConfig, head: dict[str, int], worker: dict[str, int], most: int
) -> None:
    """The run waits for machines when there are none with GPUs yet, and its workers fit on those that come."""
    batch = config.data.global_batch
    chosen = choose(config.scaling, [Machine(head["CPU"], head["GPU"])], global_batch=batch)
    assert chosen.use_gpu
    assert chosen.workers == (2, most)
    assert places([Machine(worker["CPU"], worker["GPU"])] * most, chosen.cpus_per_worker, chosen.use_gpu) == most


def unknown(value: Any, fields: Any, where: str) -> Iterator[str]:
    """What of a document is not in the tree of fields, or of another type."""
    if fields == "object":
        return
    if isinstance(fields, dict) and isinstance(value, dict):
        for name, inner in value.items():
            if name in fields:
                yield from unknown(inner, fields[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}: no such field"
    elif isinstance(fields, list) and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from unknown(inner, fields[0], f"{where}[{index}]")
    elif isinstance(fields, str) and fields.startswith("map of ") and isinstance(value, dict):
        for name, inner in value.items():
            yield from unknown(inner, fields.removeprefix("map of "), f"{where}.{name}")
    elif not isinstance(fields, str) or not fits(value, fields):
        yield f"{where}: {value!r} is not {fields}"


def fits(value: Any, kind: str) -> bool:
    return value in kind.split(" | ") if " | " in kind else isinstance(value, TYPES.get(kind, ()))


def test_kuberay_knows_every_field_of_the_rayjob() -> None:
    assert list(unknown(load("kuberay-rayjob.yaml"), yaml.safe_load(FIELDS.read_text()), "RayJob")) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.ttlSeconds", 5, "RayJob.spec.ttlSeconds: no such field"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens", "'tokens' is not disabled | token"),
        ("spec.backoffLimit", "3", "RayJob.spec.backoffLimit: '3' is not integer"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0, "num-cpus: 0 is not string"),
    ],
)
def test_kuberay_would_refuse(path: str, value: Any, said: str) -> None:
    document = load("kuberay-rayjob.yaml")
    *folders, last = path.split(".")
    inner = document
    for name in folders:
        inner = inner[name]
    inner[last] = value
    (problem,) = unknown(document, yaml.safe_load(FIELDS.read_text()), "RayJob")
    assert said in problem


def test_the_rayjob_trains_with_what_the_parser_takes() -> None:
    spec = load("kuberay-rayjob.yaml")["spec"]
    assert spec["entrypoint"].startswith("python -m cluster train ")
    config = parse_options(shlex.split(spec["entrypoint"])[4:]).config
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    worker = {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"])}
    starts_from_the_head_and_fills_the_rest(config, {"CPU": 0, "GPU": 0}, worker, group["maxReplicas"])
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"].keys() == {VARIABLE}
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    pod = group["template"]["spec"]
    assert pod["serviceAccountName"] == "nla-cyclegan"
    (shm,) = pod["volumes"]
    assert shm["emptyDir"]["medium"] == "Memory"
    assert pod["containers"][0]["volumeMounts"] == [{"mountPath": "/dev/shm", "name": shm["name"]}]


def test_ray_is_the_same_everywhere() -> None:
    found = [
        *re.findall(r"rayproject/ray:([\d.]+)-py311", "".join(file.read_text() for file in DEPLOY.iterdir())),
        load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"],
    ]
    assert found == [version("ray")] * 4


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda script: script.name)
def test_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK)


def wait_for(event: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 120
    while not event():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def stub(folder: Path, name: str, body: str) -> None:
    """A program that stands for another."""
    (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (folder / name).chmod(0o755)


def test_slurm_starts_ray_everywhere_and_the_run_on_the_first(tmp_path: Path) -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import symmetric_run

    checkout = tmp_path / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    stub(tmp_path, "scontrol", "printf 'node7\\nnode8\\n'")
    stub(tmp_path, "hostname", "echo 10.0.0.7 172.17.0.1")
    # Its own options go, the program stays.
    stub(tmp_path, "srun", 'while [[ $1 == -* ]]; do shift; done; exec "$@"')
    stub(
        tmp_path,
        "ray",
        f'printf "%s\\n" "$@" > {tmp_path}/ray.txt; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" > {tmp_path}/token',
    )
    environment = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        **{"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "40123"},
        **{"SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "64", "SLURM_GPUS_ON_NODE": "8"},
    }
    of_the_run = ["--data.uri", "/shared/my data", "--storage", "/shared/runs", "--data.global_batch", "16"]
    subprocess.run(["bash", str(DEPLOY / "slurm.sh"), *of_the_run], env=environment, check=True)

    called = (tmp_path / "ray.txt").read_text().splitlines()
    assert called[0] == "symmetric-run"
    before, after = called[1 : called.index("--")], called[called.index("--") + 1 :]
    assert before == ["--address", "10.0.0.7:20123", "--min-nodes", "2", "--num-cpus", "64", "--num-gpus", "8"]
    known = {option for command in (symmetric_run, start) for parameter in command.params for option in parameter.opts}
    assert {option for option in before if option.startswith("--")} <= known
    assert after[:4] == ["python", "-m", "cluster", "train"]
    options = parse_options(after[4:])
    assert options.address == "10.0.0.7:20123"
    assert options.config.data.uri == "/shared/my data"
    mode, token = (tmp_path / "token").read_text().split()
    assert (mode, len(token)) == ("token", 64)
    assert token not in "".join(called)


# A driver that takes its time to save, and Ray that would not survive the signal.
DRIVER = """import signal, sys, time
from pathlib import Path
def stop(number, frame):
    time.sleep(0.5)
    Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
Path("starting").write_text(" ".join(sys.argv))
Path("starting").rename("started")
time.sleep(600)
"""
SYMMETRIC_RUN = """trap 'touch {folder}/ray-got-it' TERM
while [ "$1" != -- ]; do shift; done
shift
"$@"
status=$?
touch {folder}/ray-ended
exit $status
"""


@pytest.mark.parametrize(
    ("state", "signalled", "requeued"),
    [("RUNNING", True, True), ("COMPLETING", True, False), ("RUNNING", False, False)],
)
def test_at_slurms_time_limit_the_driver_alone_gets_the_signal_and_the_job_comes_again(
    tmp_path: Path, state: str, signalled: bool, requeued: bool
) -> None:
    """COMPLETING: somebody has cancelled the job. Without a signal the driver fails by itself."""
    checkout = tmp_path / "checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / "cluster").mkdir()
    (checkout / "cluster" / "__main__.py").write_text(DRIVER if signalled else "import sys; sys.exit(1)")
    scontrol = 'echo "$@" >> {0}/asked; [ "$1" = hostnames ] || echo "JobId=1 JobState={1} Reason=None"; echo node7'
    stub(tmp_path, "scontrol", scontrol.format(tmp_path, state))
    stub(tmp_path, "hostname", "echo 127.0.0.1")
    stub(tmp_path, "srun", 'while [[ $1 == -* ]]; do shift; done; exec "$@"')
    stub(tmp_path, "ray", SYMMETRIC_RUN.format(folder=tmp_path))
    environment = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        **{"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_NODELIST": "node7", "SLURM_JOB_ID": str(os.getpid())},
        **{"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "2", "SLURM_GPUS_ON_NODE": "0"},
    }
    script = (DEPLOY / "slurm.sh").read_text()
    assert {"#SBATCH --signal=B:TERM@120", "#SBATCH --requeue", "#SBATCH --open-mode=append"} <= set(
        script.splitlines()
    )
    with subprocess.Popen(["bash", str(DEPLOY / "slurm.sh"), "--name", "a run"], env=environment) as batch:
        if signalled:
            wait_for((checkout / "started").exists)
            assert (checkout / "started").read_text().endswith("--name a run")
            batch.terminate()
        assert batch.wait(120) == (143 if signalled else 1)
    assert (checkout / "saved").exists() == signalled
    assert (tmp_path / "ray-ended").exists()
    assert not (tmp_path / "ray-got-it").exists()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert (f"requeue {os.getpid()}" in asked) == requeued


class Metadata(BaseHTTPRequestHandler):
    """A cloud's metadata service, which has a notice from the third question on."""

    asked: list[str]
    notice: dict[str, str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        known = self.notice.get(self.path)
        self.send_response(200 if known and len(self.asked) > 2 else 404)
        self.end_headers()
        if known and len(self.asked) > 2:
            self.wfile.write(known.encode())

    def do_PUT(self) -> None:
        self.send_response(200 if "latest" in str(self.notice) else 404)
        self.end_headers()
        self.wfile.write(b"token")

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the console of the tests."""


@pytest.mark.parametrize(
    ("notice", "seconds"),
    [
        ({"/latest/meta-data/spot/instance-action": '{"action": "terminate"}'}, "110"),
        ({"/computeMetadata/v1/instance/preempted": "TRUE"}, "25"),
    ],
    ids=["aws", "google"],
)
def test_ray_hears_of_a_machine_that_is_taken_away(notice: dict[str, str], seconds: str, tmp_path: Path) -> None:
    from ray.scripts.scripts import drain_node

    asked: list[str] = []
    handler = type("Handler", (Metadata,), {"asked": asked, "notice": notice})
    stub(tmp_path, "ray", f'printf "%s\\n" "$@" > {tmp_path}/ray.txt')
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "METADATA": f"http://127.0.0.1:{server.server_port}",
            "EVERY_S": "0.05",
        }
        subprocess.run(["bash", str(DEPLOY / "preemption.sh")], env=environment, check=True, timeout=60)
        server.shutdown()
    assert len(asked) > 2
    called = (tmp_path / "ray.txt").read_text().splitlines()
    assert called[0] == "drain-node"
    assert called[1:] == [
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the spot machine is taken away"),
        *("--deadline-remaining-seconds", seconds),
    ]
    known = {option for parameter in drain_node.params for option in parameter.opts}
    assert {option for option in called if option.startswith("--")} <= known


def polled(metadata: str, folder: Path, enough: Callable[[], bool], lines: int = 1) -> list[str]:
    """What preemption.sh says: these lines, and what comes until it has polled often enough."""
    path = f"{folder}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", str(DEPLOY / "preemption.sh")],
        env={"PATH": path, "METADATA": metadata, "EVERY_S": "0.02"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    said = [process.stderr.readline().rstrip() for _ in range(lines)]
    wait_for(enough)
    process.kill()
    return [*said, *process.communicate()[1].splitlines()]


def test_what_asks_for_notices_is_in_rays_image() -> None:
    """It has Python and no curl."""
    text = (DEPLOY / "preemption.sh").read_text()
    code = text.partition("<<'PYTHON'\n")[2].removesuffix("PYTHON\n")
    imported = re.findall(r"^(?:import|from) ([a-z]+)", code, re.MULTILINE)
    assert imported
    assert set(imported) <= sys.stdlib_module_names
    shell = text.partition("<<'PYTHON'")[0].splitlines()
    assert [line.split()[0] for line in shell if line and not line.startswith("#")] == ["set", "exec"]


def test_a_machine_that_cannot_ask_says_so_once(tmp_path: Path) -> None:
    (line,) = polled("http://127.0.0.1:1", tmp_path, lambda: time.sleep(0.3) is None)
    assert line.startswith("http://127.0.0.1:1 does not answer (<urlopen error")
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Nobody", (Metadata,), {"asked": asked, "notice": {}})) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (line,) = polled(f"http://127.0.0.1:{server.server_port}", tmp_path, lambda: len(asked) > 3)
        assert "is the metadata service of neither AWS nor Google" in line
        server.shutdown()


def test_a_notice_that_ray_does_not_take_is_said_once_and_tried_again(tmp_path: Path) -> None:
    notice = {"/computeMetadata/v1/instance/preempted": "TRUE"}
    stub(tmp_path, "ray", f"echo x >> {tmp_path}/tries; exit 1")
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Taken", (Metadata,), {"asked": [], "notice": notice})) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        tries = tmp_path / "tries"
        _, line = polled(
            f"http://127.0.0.1:{server.server_port}", tmp_path, lambda: len(tries.read_text().splitlines()) > 1, lines=2
        )
        server.shutdown()
    assert line == "the spot machine is taken away, and ray drain-node fails (1)"


# What a cloud's program says, by the words of the command, and what it was called with.
CLOUD = """
printf '%s\\n' "$*" >> {folder}/calls
cat {folder}/answers/"$(printf '%s' "$1 $2 $3" | tr ' /' '__')" 2> /dev/null && exit 0
[[ "$*" == *get-role* || "$*" == *get-instance-profile* || "$*" == *accounts\\ describe* ]] && exit {there}
if [[ "$*" == *get-bucket-lifecycle* ]]; then echo "An error occurred (NoSuchLifecycleConfiguration)" >&2; exit 254; fi
if [[ "$*" == *lifecycle-file* ]]; then cat "${{@: -1}}" > {folder}/rule; fi
exit 0
"""


def access(folder: Path, cloud: str, *, there: bool = False, rules: str = "", **answers: str) -> tuple[list[str], str]:
    """The calls of an access script, with every word of theirs, and what it prints."""
    program = {"aws": "aws", "gcp": "gcloud"}[cloud]
    stub(folder, program, CLOUD.format(folder=folder, there=0 if there else 1))
    (folder / "answers").mkdir(exist_ok=True)
    asked = {"aws": "s3api_get-bucket-lifecycle-configuration_--bucket", "gcp": "storage_buckets_describe"}[cloud]
    (folder / "answers" / "sts_get-caller-identity_--query").write_text("123456789012")
    if rules:
        (folder / "answers" / asked).write_text(rules)
    (folder / "calls").unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", str(DEPLOY / f"{cloud}-access.sh"), *(["project"] if cloud == "gcp" else []), "my-bucket"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return (folder / "calls").read_text().splitlines(), done.stdout + done.stderr


def policies(calls: list[str]) -> dict[str, Any]:
    """Name of a role's policy -> its statements."""
    text = "\n".join(calls)
    found = re.findall(
        r"put-role-policy --role-name (\S+) --policy-name (\S+) --policy-document (\{.*?\})\n(?!\s)", text, re.DOTALL
    )
    return {f"{role}/{name}": json.loads(document)["Statement"] for role, name, document in found}


def test_aws_access_is_for_machines_of_this_cluster_alone(tmp_path: Path) -> None:
    calls, _ = access(tmp_path, "aws")
    given = policies(calls)
    assert given.keys() == {
        "nla-cyclegan-worker/bucket", "nla-cyclegan-head/bucket", "nla-cyclegan-head/machines",
    }  # fmt: skip
    machines = given["nla-cyclegan-head/machines"]
    actions = {
        action
        for each in machines
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    }
    # What Ray's provider calls on the head, see ray/autoscaler/_private/aws/node_provider.py.
    assert actions == {
        *("ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:RunInstances", "ec2:CreateTags"),
        *("ec2:TerminateInstances", "ssm:GetParameters", "iam:PassRole"),
    }
    cluster, region = load("aws.yaml")["cluster_name"], load("aws.yaml")["provider"]["region"]
    for each in machines:
        condition = str(each.get("Condition"))
        named = f"ray-cluster-name': '{cluster}'"
        if "instance/*" in str(each["Resource"]):
            assert named in condition, each
        assert each["Resource"] != "*" or f"'aws:RequestedRegion': '{region}'" in condition
    passed = next(each for each in machines if each["Action"] == "iam:PassRole")
    assert passed["Resource"] == "arn:aws:iam::123456789012:role/nla-cyclegan-worker"
    for statement in given["nla-cyclegan-worker/bucket"]:
        assert statement["Resource"].startswith("arn:aws:s3:::my-bucket")


@pytest.mark.parametrize(("there", "made"), [(False, 2), (True, 0)])
def test_access_scripts_may_be_called_again(there: bool, made: int, tmp_path: Path) -> None:
    calls, _ = access(tmp_path, "aws", there=there)
    assert sum("iam create-role" in call for call in calls) == made
    assert sum("create-service-linked-role" in call for call in calls) == made / 2
    calls, _ = access(tmp_path, "gcp", there=there)
    assert sum("service-accounts create" in call for call in calls) == made


@pytest.mark.parametrize(("roles", "added"), [("", 2), ("nla-cyclegan-head nla-cyclegan-worker", 0)])
def test_an_instance_profile_whose_making_was_interrupted_gets_its_role(roles: str, added: int, tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "iam_get-instance-profile_--instance-profile-name").write_text(roles)
    calls, _ = access(tmp_path, "aws", there=True)
    assert sum("create-instance-profile" in call for call in calls) == 0
    assert sum("add-role-to-instance-profile" in call for call in calls) == added


def test_gcp_access_lets_the_head_act_as_the_workers_account_alone(tmp_path: Path) -> None:
    calls, _ = access(tmp_path, "gcp")
    worker = "nla-cyclegan-worker@project.iam.gserviceaccount.com"
    of_the_project = [call for call in calls if call.startswith("projects add-iam-policy-binding")]
    assert [re.findall(r"roles/\S+", call) for call in of_the_project] == [["roles/compute.instanceAdmin.v1"]]
    (acting,) = [call for call in calls if "roles/iam.serviceAccountUser" in call]
    assert acting.startswith(f"iam service-accounts add-iam-policy-binding {worker} ")


def test_an_unfinished_upload_is_not_billed_for_ever(tmp_path: Path) -> None:
    """A rule is added only where the bucket has none."""
    calls, said = access(tmp_path, "aws")
    (added,) = [call for call in "\n".join(calls).split("\ns3api ") if call.startswith("put-bucket-lifecycle")]
    rule = json.loads(added.partition("--lifecycle-configuration ")[2])
    assert rule["Rules"][0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert "unfinished uploads are deleted after 7 days" in said
    calls, said = access(tmp_path, "aws", rules='{"Rules": [{"ID": "theirs"}]}')
    assert not any("put-bucket-lifecycle" in call for call in calls)
    assert "my-bucket has lifecycle rules, which stay as they are; add this one to them" in said
    _, said = access(tmp_path, "aws", rules='{"Rules": [{"AbortIncompleteMultipartUpload": {}}]}')
    assert "lifecycle" not in said

    _, said = access(tmp_path, "gcp")
    assert json.loads((tmp_path / "rule").read_text())["rule"][0]["action"]["type"] == "AbortIncompleteMultipartUpload"
    assert "unfinished uploads are deleted after 7 days" in said
    calls, said = access(tmp_path, "gcp", rules="{'rule': [{'action': {'type': 'Delete'}}]}")
    assert not any("lifecycle-file" in call for call in calls)
    assert "which stay as they are" in said


def test_the_drivers_are_new_enough_for_torch() -> None:
    image = load("gcp.yaml")["available_node_types"]["gpu"]["node_config"]["disks"][0]["initializeParams"][
        "sourceImage"
    ]
    assert int(image.rpartition("-nvidia-")[2]) >= OLDEST[13]


def test_a_pod_that_is_ended_tells_ray_likewise() -> None:
    from ray.scripts.scripts import drain_node

    (group,) = load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    bash, c, script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert (bash, c) == ("bash", "-c")
    drain, sleep = script.split("&&")
    words = shlex.split(drain)
    context = drain_node.make_context("drain-node", words[2:])
    assert words[:2] == ["ray", "drain-node"]
    assert context.params["deadline_remaining_seconds"] <= int(sleep.split()[1]) < pod["terminationGracePeriodSeconds"]


def test_the_driver_of_a_head_that_is_ended_saves_before_ray_ends(tmp_path: Path) -> None:
    """Under another name than that of real drivers, which may run on this machine."""
    pod = load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    python, c, script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, c) == ("python", "-c")
    module = f"driver{os.getpid()}"
    (tmp_path / f"{module}.py").write_text(DRIVER)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(["python", "-m", module, "train", "--name", "x"], cwd=tmp_path, env=environment) as driver:
        wait_for((tmp_path / "started").exists)
        # Else it stays in the table of processes when it has ended.
        waiting = Thread(target=driver.wait)
        waiting.start()
        subprocess.run([sys.executable, c, script.replace("cluster", module)], check=True, timeout=120)
        waiting.join()
        assert driver.returncode == 143
    assert (tmp_path / "saved").exists()
    assert pod["terminationGracePeriodSeconds"] > int(STOP_WAIT["RAY_JOB_STOP_WAIT_TIME_S"])
    assert {each["name"]: each["value"] for each in pod["containers"][0]["env"]} == STOP_WAIT


@pytest.mark.parametrize("page", ["README.md", "cluster/README.md"])
def test_commands_of_the_pages_are_accepted(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PWD", str(ROOT))
    # The others have places for what a reader fills in.
    train = [found for found in commands(ROOT / page, "train") if "--data.uri" in found]
    sent = [found for found in commands(ROOT / page, "submit") if "--data.uri" in found]
    assert train + sent
    for arguments in train:
        parse_options(arguments)
    for arguments in sent:
        parser = submission.submit_parser("submit", "", "", "")
        _, of_the_run = parser.parse_known_args([os.path.expandvars(argument) for argument in arguments])
        submit.make_job(of_the_run)
