"""Retries for storage that throttles, drops connections or does not answer. Errors that retrying cannot help are raised at once.

tenacity would save little: the deadline counted from the first failure, the private jitter, the event that ends a wait and the
advice would all be callbacks of ours.
"""

import errno
import logging
import random
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from data_shards.errors import StorageAwayError, UserError
from data_shards.repeats import AWAY
from data_shards.storage.uri import shown

LOG = logging.getLogger(__name__)

# Seconds, from the first failure on, in which calls are retried; a call that has begun by then is not interrupted.
PATIENCE_S = 60.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
# A private generator, so that the global one's state stays as it is.
JITTER = random.Random()

# errno values of a disk or a network mount; pyarrow's errors of remote storage have none.
TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT}
TRANSIENT |= {errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH}
TRANSIENT |= {errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH}
GOOGLE = (
    "this machine's service account, or the one of the file that GOOGLE_APPLICATION_CREDENTIALS names, must have a role for this "
    "bucket; `gcloud auth application-default login` gives this machine yours"
)
# Google's client found no credentials and asked the machine for those of its service account: a machine that has them may need a
# few seconds after its start.
NO_TOKEN, NO_TOKEN_S = "Could not create a OAuth2 access token", 5.0
# Patterns of error messages for which waiting does not help, and what the user can do. The first match counts.
ADVICE = {
    r"HTTP status 407|CONNECT tunnel failed, response 4": (
        "the proxy refuses: write its user and password into HTTPS_PROXY and HTTP_PROXY (http://USER:PASSWORD@HOST:PORT), or the "
        "store's host into NO_PROXY"
    ),
    "Could not resolve proxy": "there is no such proxy: correct HTTPS_PROXY and HTTP_PROXY",
    "AWS Error NO_SUCH_BUCKET|Bucket '.*' not found": "there is no such bucket: create it, or correct the URI",
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|\w*SIGNATURE\w*|MISSING_AUTHENTICATION_TOKEN|INVALID_CLIENT_TOKEN_ID"
    r"|UNRECOGNIZED_CLIENT|UNKNOWN \(HTTP status 40[13]\))|ExpiredToken|InvalidToken": (
        "credentials refused: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (temporary ones: AWS_SESSION_TOKEN too) "
        "to some that may use this bucket"
    ),
    r"Status\((PERMISSION_DENIED|UNAUTHENTICATED)|Could not (load|find|create).* credentials": f"credentials refused: {GOOGLE}",
    "AuthenticationException": (
        "no credentials: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or log in with `az login`, or use a machine "
        "with a managed identity; ?credential_kind=anonymous at the end of the URI needs none"
    ),
    "a valid account name": "write it as abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
    "Unsupported hostname in .*local URI": "a path of this machine is written file:///PATH, with three slashes",
    "Custom endpoint .* was not a valid URI": (
        "the endpoint is no address: write it as http://HOST:PORT in AWS_ENDPOINT_URL, or as HOST:PORT in endpoint_override=..."
    ),
    "Unable to load lib(jvm|hdfs)|load libhdfs failed": "hdfs:// needs Hadoop's client and a JVM on this machine",
    "REQUEST_TIME_TOO_SKEWED": "the clocks of this machine and of the server differ: set them",
    r"HTTP status 30\d|AuthorizationHeaderMalformed": "the bucket is in another region: add region=... to the URI",
    r"HTTP status 411": (
        "the server takes no checksums after the body: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
        "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
    ),
    r"HTTP status 400": "request refused: are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set?",
    r"wrong version number|CURL error \[35\]": "the server speaks plain HTTP: add scheme=http to the URI",
    r"curlCode: (51|60)\b": "the server's certificate is not trusted: add tls_ca_file_path=... to the URI",
    r"HTTP status 4(?!08|09|25|29)": "request refused",
    "is a directory": "it should be a file",
}

T = TypeVar("T")


def patiently(task: str, attempt: Callable[[], T], closed: threading.Event | None = None) -> T:
    """What `attempt` returns, retried while storage is unreachable; setting `closed` ends a wait.

    Raises: FileNotFoundError and NotADirectoryError of `attempt`; UserError "cannot TASK: ..." where waiting does not help;
    StorageAwayError after PATIENCE_S.
    """
    closed = closed or threading.Event()
    delay, failed_first = FIRST_DELAY_S, 0.0
    while True:
        try:
            return attempt()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, pa.ArrowException) as error:
            reason = shown(first_line(error))
            advice = _advice(error)
            if advice is not None:
                raise UserError(f"cannot {task}: {advice}{reason}") from error
            failed_first = failed_first or time.monotonic()
            waited = time.monotonic() - failed_first
            no_token = NO_TOKEN in reason
            if waited + delay > (NO_TOKEN_S if no_token else PATIENCE_S) or closed.is_set():
                advice = f"{GOOGLE}: " if no_token else ""
                raise StorageAwayError(f"cannot {task}, tried for {waited:.0f} s: {advice}{reason}") from error
            LOG.warning("cannot %s yet, again in %.1f s: %s", task, delay, reason, extra=AWAY)
        # Jitter: readers that were rejected together must not retry together.
        closed.wait(delay * JITTER.uniform(0.5, 1.0))
        delay = min(2 * delay, LONGEST_DELAY_S)


def first_line(error: BaseException) -> str:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Google's client says everything twice.
    return re.sub(r"google::cloud::Status\((\w+): (?:.*?last message of )?(.*?) error_info=.*", r"\1: \2", line)


def _advice(error: Exception) -> str | None:
    """What to do about an error for which retrying does not help, as the beginning of a sentence; None if it may be transient."""
    advice = next((advice for pattern, advice in ADVICE.items() if re.search(pattern, str(error))), None)
    if advice is not None:
        return f"{advice}: "
    # Of pyarrow's other errors: a URI, a name or an option that it refuses.
    is_final = (
        not isinstance(error, OSError) or error.errno not in (None, *TRANSIENT) or isinstance(error, PermissionError)
    )
    return "" if is_final else None
