"""Stops a job for good on final errors: KubeRay retries a failed job on a new cluster, whatever the error."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster.jobs.follow import unreachable
from cluster.settings.preflight import in_ray_job
from data_shards.errors import ExhaustedError, UserError, error_lines, say

# Set by cluster/deploy/kuberay-rayjob.yaml. Elsewhere a job that failed should say so.
VARIABLE = "STOP_JOB_ON_FINAL_ERROR"
STOPS_WITHIN_S = 60.0


@contextmanager
def final_errors_stop_the_job() -> Iterator[None]:
    """If the variable is set, an error that a retry cannot fix stops this process's own Ray job.

    KubeRay does not repeat a job that was stopped: its RayJob is complete, and its status says STOPPED.
    """
    try:
        yield
    except UserError as error:
        if is_final(error) and in_ray_job() and os.environ.get(VARIABLE):
            say(error_lines(error))
            say("stopping this job: a retry would fail again")
            # Where the head does not answer, the job ends with this error.
            with suppress(*unreachable(), KeyError):
                _stop_own_job()
        raise


def is_final(error: UserError) -> bool:
    """Whether a retry would fail again."""
    return not error.retryable and not isinstance(error, ExhaustedError)


def _stop_own_job() -> None:
    """Ask the head to stop this job, which ends this process."""
    from ray.job_submission import JobSubmissionClient

    job = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
    JobSubmissionClient(os.environ["RAY_ADDRESS"]).stop_job(job["metadata"]["job_submission_id"])
    time.sleep(STOPS_WITHIN_S)
