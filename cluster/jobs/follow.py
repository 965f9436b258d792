"""Following a Ray job: its log, Ctrl-C, and its exit status."""

import asyncio
import signal
import time
from typing import TYPE_CHECKING

from data_shards.errors import UserError, say

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# Seconds in which a second Ctrl-C stops the job.
SECOND_S = 3.0
# Seconds that a cluster may be unreachable, and between two polls.
PATIENCE_S = 60.0
POLL_S = 1.0
INTERRUPTED = 130


async def follow(client: "JobSubmissionClient", job_id: str) -> int:
    """Print a job's log until it ends, and return its exit status; 130 when Ctrl-C came first.

    The first Ctrl-C leaves the job alone; a second within SECOND_S stops it, and a third does not wait for its end.

    Raises: UserError when the cluster does not answer any more.
    """
    pressed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, pressed.set)
    ended = asyncio.create_task(_print_log(client, job_id))
    if await _ends_before(ended, pressed):
        return _outcome(await ended)
    pressed.clear()
    say(f"Ctrl-C again within {SECOND_S:g} s stops {job_id}")
    if await _ends_before(ended, pressed, SECOND_S):
        return _outcome(await ended)
    if pressed.is_set():
        pressed.clear()
        say(f"{job_id}: stopping; another Ctrl-C leaves the log")
        try:
            await asyncio.to_thread(client.stop_job, job_id)
        except unreachable() as error:
            ended.cancel()
            raise UserError(
                f"{job_id}: not stopped, the cluster does not answer ({error}); stop it with ray job stop"
            ) from error
        if await _ends_before(ended, pressed):
            return _outcome(await ended)
    ended.cancel()
    say(follow_commands(client.get_address(), job_id))
    return INTERRUPTED


def unreachable() -> tuple[type[Exception], ...]:
    """What Ray's client of jobs raises when the cluster does not answer, or does not do what it was asked for."""
    import aiohttp
    import requests

    return OSError, RuntimeError, aiohttp.ClientError, requests.RequestException


def follow_commands(address: str, job_id: str) -> str:
    return (
        f"{job_id}: continues\n"
        f"  follow it   ray job logs --address {address} --follow {job_id}   (or the same submit command)\n"
        f"  stop it     ray job stop --address {address} {job_id}"
    )


async def _ends_before(
    ended: "asyncio.Task[JobDetails]", pressed: asyncio.Event, timeout_s: float | None = None
) -> bool:
    """Wait for the job's end or a Ctrl-C; whether it was the end."""
    press = asyncio.create_task(pressed.wait())
    await asyncio.wait({ended, press}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    press.cancel()
    return ended.done()


async def _print_log(client: "JobSubmissionClient", job_id: str) -> "JobDetails":
    """Print what the job writes until it has ended; reconnects."""
    # Importing what it names takes a moment.
    failures = unreachable()
    printed, answered = 0, time.monotonic()
    while True:
        try:
            # A new connection sends the whole log.
            at = 0
            async for chunk in client.tail_job_logs(job_id):
                print(chunk[max(0, printed - at) :], end="", flush=True)
                at += len(chunk)
                printed, answered = max(printed, at), time.monotonic()
            job = await asyncio.to_thread(client.get_job_info, job_id)
            answered = time.monotonic()
            if job.status.is_terminal():
                return job
        except BrokenPipeError:
            # The reader of this process's output is gone, not the cluster.
            raise
        except failures as error:
            if time.monotonic() - answered > PATIENCE_S:
                raise UserError(
                    f"{job_id}: the cluster has not answered for {PATIENCE_S:g} s ({error}); the same command follows "
                    "the job again, or submits the run again, which resumes from its newest checkpoint"
                ) from error
        await asyncio.sleep(POLL_S)


def _outcome(job: "JobDetails") -> int:
    if job.status.value == "SUCCEEDED":
        return 0
    status = INTERRUPTED if job.status.value == "STOPPED" else job.driver_exit_code or 1
    first = (job.message or "").splitlines()[:1]
    say(f"{job.submission_id}: {job.status.value.lower()} {' '.join(first)}".rstrip())
    return status
