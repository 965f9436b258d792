"""Advice for errors of the stores' clients: by what their messages say, since pyarrow gives all of them as OSError."""

import errno
import re

from data_shards.errors import FILE_TOO_LARGE

# errno values of a disk or a network mount; pyarrow's errors of remote storage have none.
TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT}
TRANSIENT |= {errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH}
TRANSIENT |= {errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH}
# Of a FUSE mount whose process has died, until it is mounted again; of Lustre, which has evicted this client.
TRANSIENT |= {errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN}
GOOGLE = (
    "this machine's service account, or the one of the file that GOOGLE_APPLICATION_CREDENTIALS names, must have a role for this "
    "bucket; `gcloud auth application-default login` gives this machine yours"
)
AZURE = (
    "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or log in with "
    "`az login`, or use a machine with a managed identity"
)
REFUSED = "credentials refused"
# Google's client found no credentials and asked the machine for those of its service account.
NO_TOKEN = "Could not create a OAuth2 access token"
# Patterns of error messages for which waiting does not help, and what the user can do. The first match counts.
ADVICE = {
    r"HTTP status 407|CONNECT tunnel failed, response 4": (
        "the proxy refuses: write its user and password into HTTPS_PROXY and HTTP_PROXY (http://USER:PASSWORD@HOST:PORT), or the "
        "store's host into NO_PROXY"
    ),
    "Could not resolve proxy": "there is no such proxy: correct HTTPS_PROXY and HTTP_PROXY",
    "AWS Error NO_SUCH_BUCKET|Bucket '.*' not found": "there is no such bucket: create it, or correct the URI",
    # Of Aliyun's OSS and Tencent's COS.
    "SecondLevelDomainForbidden|PathStyleDomainForbidden": (
        "the server wants the bucket in the host's name: add force_virtual_addressing=true to the URI"
    ),
    # Of Ceph and MinIO; Amazon's have none.
    "QuotaExceeded|StorageFull|InsufficientStorage|HTTP status 507": (
        "the space or quota of the storage is used up: delete what is not needed, or have it raised"
    ),
    "InvalidObjectState|not valid for the object's storage class": (
        "it is archived, as by a lifecycle rule (GLACIER, DEEP_ARCHIVE): restore it first, and leave this folder out of the rule"
    ),
    "protected by object lock|retention policy": "a retention period of the bucket forbids it",
    # Of a bucket that demands headers for encryption, tags or an ACL, which pyarrow's client does not send.
    "explicit deny in a": (
        "a policy denies it to these credentials (if it demands encryption headers, which are not sent: set the bucket's default "
        "encryption instead)"
    ),
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|\w*SIGNATURE\w*|MISSING_AUTHENTICATION_TOKEN|INVALID_CLIENT_TOKEN_ID"
    r"|UNRECOGNIZED_CLIENT|UNKNOWN \(HTTP status 40[13]\))|ExpiredToken|InvalidToken|TokenRefreshRequired": (
        f"{REFUSED}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (temporary ones: AWS_SESSION_TOKEN too) "
        "to some that may use this bucket"
    ),
    r"Status\((PERMISSION_DENIED|UNAUTHENTICATED)|Could not (load|find|create).* credentials": f"{REFUSED}: {GOOGLE}",
    "AuthenticationException": f"no credentials: set {AZURE}; ?credential_kind=anonymous at the end of the URI needs none",
    r"Azure Error: \[ContainerNotFound\]": "there is no such container: create it, or correct the URI",
    r"Azure Error: \[\w*\] 40[13]": (
        f"{REFUSED}: set {AZURE}; a SAS token may have expired, and an identity needs the role Storage Blob Data Contributor"
    ),
    # In conflict with another writer, whose lease ends soon (409, 412), or with one that has made the file shorter (416).
    r"Azure Error: \[\w*\] 4(?!08|09|12|16|29)\d\d": "request refused",
    "Empty path component": "two slashes follow each other: leave one out (is a variable of the shell not set?)",
    "a valid account name": "write it as abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
    "Unsupported hostname in .*local URI": "a path of this machine is written file:///PATH, with three slashes",
    "Custom endpoint .* was not a valid URI": (
        "the endpoint is not an address: write it as http://HOST:PORT in AWS_ENDPOINT_URL, or as HOST:PORT in endpoint_override=..."
    ),
    "Unable to load lib(jvm|hdfs)|load libhdfs failed": "hdfs:// needs Hadoop's client and a JVM on this machine",
    "REQUEST_TIME_TOO_SKEWED": "the clocks of this machine and of the server differ: set them",
    r"HTTP status 30\d|AuthorizationHeaderMalformed": "the bucket is in another region: add region=... to the URI",
    r"HTTP status 411": (
        "the server does not accept checksums after the body: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
        "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
    ),
    r"Content-MD5 OR x-amz-checksum": (
        "a bucket with object lock accepts nothing without a checksum: do not set AWS_REQUEST_CHECKSUM_CALCULATION"
    ),
    # The answer to HEAD has no reason.
    r"HTTP status 400\) during Head": (
        f"{REFUSED}, or the bucket is in another region: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which may have expired, "
        "or add region=... to the URI"
    ),
    r"HTTP status 400": "request refused: are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set?",
    r"wrong version number|CURL error \[35\]": (
        "the server speaks plain HTTP: write http:// before it in AWS_ENDPOINT_URL, or add scheme=http to the URI"
    ),
    r"curlCode: (51|60)\b": "the server's certificate is not trusted: add tls_ca_file_path=... to the URI",
    r"HTTP status (4(?!08|09|16|25|29)|501)": "request refused",
    # A mount of a bucket, or a union of file systems.
    "Function not implemented|Invalid cross-device link": (
        "this file system cannot rename files: use another one, or the bucket's URI instead of its mount"
    ),
    "File too large": FILE_TOO_LARGE,
    "is a directory|Not a regular file": "it should be a file",
}
# The likely cause of errors that may also pass.
CAUSES = {
    # pyarrow's client has room for as many bytes as it asked for.
    "Failed to flush response stream": "the server answered with an error whose text is longer than the range that was requested",
    NO_TOKEN: GOOGLE,
    r"Could(n't| not) resolve host": (
        "no such host: is the account, region or endpoint of the URI right, and has this machine a network?"
    ),
}


def advice_for(error: Exception) -> str | None:
    """What to do about an error for which retrying does not help, as the beginning of a sentence; None if it may be transient."""
    advice = _first(ADVICE, error)
    # Of pyarrow's other errors: a URI, a name or an option that it refuses.
    is_final = (
        not isinstance(error, OSError) or error.errno not in (None, *TRANSIENT) or isinstance(error, PermissionError)
    )
    return advice or ("" if is_final else None)


def likely_cause(error: Exception) -> str:
    """What to check where an error does not pass, as the beginning of a sentence; "" where the error says all."""
    return _first(CAUSES, error)


def is_refusal(error: Exception) -> bool:
    """Whether credentials are refused, which may have expired."""
    return (advice_for(error) or "").startswith(REFUSED)


def first_line(error: BaseException) -> str:
    """What a client says, in one line."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Azure's begins with what it was doing, and the URL.
    line = re.sub(r".*(Azure Error: (\[\] )?|AuthenticationExceptionE: )", "", line)
    # Google's client says everything twice.
    return re.sub(r"google::cloud::Status\((\w+): (?:.*?last message of )?(.*?) error_info=.*", r"\1: \2", line)


def _first(advice: dict[str, str], error: Exception) -> str:
    return next((f"{text}: " for pattern, text in advice.items() if re.search(pattern, str(error))), "")
