#!/usr/bin/env bash
# Tells Ray that the cloud is about to take this spot machine away, so that the run saves a checkpoint at once and continues
# without it. AWS gives notice two minutes ahead, Google half a minute. Runs next to Ray on every spot machine; what it cannot do it
# reports once. In Python, because Ray's image has no curl.
set -u
exec "$(command -v python3 || command -v python)" - <<'PYTHON'
import os
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

METADATA = os.environ.get("METADATA", "http://169.254.169.254")
EVERY_S = float(os.environ.get("EVERY_S", 2))
# Never through a proxy: only this machine itself can ask.
OPENER = build_opener(ProxyHandler({}))
AWS, GOOGLE = "/latest/meta-data/spot/instance-action", "/computeMetadata/v1/instance/preempted"
said = set()


def say(kind, text):
    """Once for each kind."""
    if kind not in said:
        said.add(kind)
        print(text, file=sys.stderr, flush=True)


def ask(path, method="GET", **headers):
    """The answer; None where the service has none under that path."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with OPENER.open(Request(METADATA + path, headers=names, method=method), timeout=2) as answer:
            return answer.read().decode()
    except HTTPError as error:
        if error.code in (404, 405):
            return None
        raise


def seconds_left():
    """Seconds until the machine is taken away; None while there is no notice."""
    token = ask("/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    if token is not None:
        return 110 if ask(AWS, X_aws_ec2_metadata_token=token) is not None else None
    preempted = ask(GOOGLE, Metadata_Flavor="Google")
    if preempted is None:
        say("unknown", f"{METADATA} is the metadata service of neither AWS nor Google: no notice will be passed on")
    return 25 if preempted == "TRUE" else None


def drained(seconds):
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "the spot machine is taken away", "--deadline-remaining-seconds", str(seconds)]
    try:
        status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        status = error
    if status != 0:
        say("ray", f"the spot machine is taken away, and ray drain-node fails ({status})")
    return status == 0


while True:
    try:
        left = seconds_left()
        said.discard("away")
    except (OSError, ValueError) as error:
        left = None
        say("away", f"{METADATA} does not answer ({error}): no notice can be passed on until it does")
    if left is not None and drained(left):
        break
    time.sleep(EVERY_S)
PYTHON
