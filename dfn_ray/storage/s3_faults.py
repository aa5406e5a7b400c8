"""S3's errors: which are retried, which are final, and their messages.

botocore and s3fs are each limited to one attempt (`dfn_ray.storage.s3`); `retries` holds the
policy.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import ClientConnectorError, ClientPayloadError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.parsers import ResponseParserError

from dfn_ray.storage import retries
from dfn_ray.storage.causes import ConditionFailedError, RefusalError, Verdict

TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504, 509})
"""Throttling and server errors. A HEAD has no body, so the status is often all there is (botocore's
_retry.json)."""
TRANSIENT_CODES = frozenset(
    {
        "SlowDown",
        "InternalError",  # also inside a 200, for completed uploads
        "ServiceUnavailable",
        "RequestTimeout",  # 400: the server timed out waiting for the body
        "IncompleteBody",  # 400: the uploaded body was truncated
        "BadDigest",  # 400: the uploaded body was corrupted
        "XAmzContentSHA256Mismatch",
        "OperationAborted",  # 409: another operation on the object is in progress
        "ConditionalRequestConflict",  # 409: another conditional write is in progress
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
CONDITION_CODES = ("412", "PreconditionFailed")
"""Codes for a failed condition: IfNoneMatch or IfMatch of a write, IfMatch of a read."""
RANGE_CODES = ("416", "InvalidRange")
"""Codes for a range that the object does not have, such as the last bytes of an empty one."""
TRANSIENT_EXCEPTIONS = (
    HTTPClientError,  # resets, closed connections, read timeouts, truncated bodies
    IncompleteReadError,  # a body shorter than its Content-Length
    ClientPayloadError,  # the same, from aiohttp
    ResponseParserError,  # throttling with truncated XML
    TimeoutError,  # an attempt beyond its time limit
)
DOUBTFUL_STATUS = frozenset({403})
"""S3 under load answers AccessDenied to requests that later succeed (ray-project/ray issues 35826,
55055)."""
DOUBTFUL_EXCEPTIONS = (
    EndpointConnectionError,  # connection refused, or the name does not resolve
    ConnectTimeoutError,
    NoCredentialsError,  # the instance's metadata service, overloaded by many processes
    CredentialRetrievalError,
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_NOT_ACCEPTED = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "InvalidSecurity",
        "NotSignedUp",
    }
)
_RIGHTS = {
    "get_object": "s3:GetObject",
    # Without s3:ListBucket, an absent object is a 403.
    "head_object": "s3:GetObject and s3:ListBucket",
    "list_objects_v2": "s3:ListBucket",
    "head_bucket": "s3:ListBucket",
    "delete_object": "s3:DeleteObject",
    "delete_objects": "s3:DeleteObject",
}
_WRITE_RIGHT = "s3:PutObject"
_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


FAILURES = (
    OSError,
    ValueError,
    BotoCoreError,
    ClientError,
    ClientPayloadError,
    ResponseParserError,
)
"""Exceptions of failed requests, as opposed to programming errors."""


def attempts_for(error: BaseException, *, served_before: bool) -> int:
    """Total number of attempts at a request that failed with this error; 1 for final errors."""
    answer = _answer(error)
    if answer is not None:
        if _status(answer) in TRANSIENT_STATUS or _code(answer) in TRANSIENT_CODES:
            return retries.POLICY.attempts
        known = _code(answer) in _EXPIRED | _NOT_ACCEPTED
        doubtful = _status(answer) in DOUBTFUL_STATUS and not known
    elif isinstance(error, TRANSIENT_EXCEPTIONS) or _was_connected(error):
        return retries.POLICY.attempts
    else:
        doubtful = isinstance(error, DOUBTFUL_EXCEPTIONS)
    return retries.POLICY.doubtful_attempts if doubtful and served_before else 1


def code_of(error: BaseException) -> str:
    """The code of S3's response; "" without a response."""
    answer = _answer(error)
    return _code(answer) if answer is not None else ""


def final_error(
    error: Exception, *, method: str, bucket: str, endpoint: str | None, attempts: int
) -> Exception:
    """The error to raise instead: FileNotFoundError unchanged, else RefusalError with advice."""
    code = code_of(error)
    if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
        return error
    if code in CONDITION_CODES:
        return ConditionFailedError(
            f"{method} in bucket {bucket}: precondition failed (the object exists or has changed)"
        )
    place = _endpoint_text(endpoint)
    if why := _access_problem(error, code, method, bucket, place):
        return RefusalError(why, Verdict.ACCESS)
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError) and not _was_connected(
        error
    ):
        return RefusalError(
            f"{place} cannot be reached; check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the "
            "network",
            # Several attempts are made only if it has responded before: the address is right then.
            Verdict.ACCESS if attempts == 1 else Verdict.TRANSIENT,
        )
    if attempts > 1:
        why = f"{method} failed {attempts} times, last with {_error_text(error)} at {place}"
        return RefusalError(why, Verdict.TRANSIENT)
    answer = _answer(error)
    refused = answer is not None and 300 <= _status(answer) < 500
    why = (
        f"{method} failed with {_error_text(error)} at {place}; check the URI and the AWS_* and "
        "FSSPEC_S3_* settings"
    )
    return RefusalError(why, Verdict.ACCESS if refused else Verdict.FINAL)


def _access_problem(
    error: Exception, code: str, method: str, bucket: str, place: str
) -> str | None:
    """The problem and its fix, if the user can fix it; None for other errors."""
    why: str | None = None
    if code == "NoSuchBucket":
        why = (
            f"there is no bucket {bucket} at {place}; create it, or check the URI and "
            "AWS_ENDPOINT_URL"
        )
    elif code in _EXPIRED:
        why = (
            f"the credentials have expired ({code}); get new ones (including AWS_SESSION_TOKEN, "
            "which is valid only with its key) and run the same command again to resume"
        )
    elif code in _NOT_ACCEPTED:
        why = f"{place} does not accept the credentials ({code}); check {_CREDENTIALS}"
    elif isinstance(error, PermissionError) or code == "403":
        why = (
            f"no permission for {method} in bucket {bucket} at {place} ({_error_text(error)}); it "
            f"needs {_RIGHTS.get(method, _WRITE_RIGHT)}. For requester-pays buckets set "
            "FSSPEC_S3_REQUESTER_PAYS=true"
        )
    elif code == "400":
        why = (
            f"{place} rejects {method} as malformed without a reason; usual causes are expired "
            "credentials, an AWS_DEFAULT_REGION other than the bucket's, or FSSPEC_S3_ANON set "
            "for a bucket that is not public"
        )
    elif isinstance(error, NoCredentialsError):
        why = (
            f"no credentials for bucket {bucket}; set {_CREDENTIALS}; for a public bucket set "
            "FSSPEC_S3_ANON=true"
        )
    elif isinstance(
        error,
        CredentialRetrievalError | PartialCredentialsError | ProfileNotFound | ConfigParseError,
    ):
        why = f"no credentials could be read ({_error_text(error)}); check {_CREDENTIALS}"
    elif isinstance(error, SSLError):
        why = f"the certificate of {place} is not trusted; check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"
    elif isinstance(error, ValueError):
        why = "the connection settings are invalid; check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION"
    return why


def _was_connected(error: BaseException) -> bool:
    """True for a reset before the response; aiobotocore reports an unreachable endpoint."""
    return isinstance(error, EndpointConnectionError) and not isinstance(
        error.kwargs.get("error"), ClientConnectorError
    )


def _answer(error: BaseException) -> ClientError | None:
    """S3's response in an error of botocore, or of s3fs, which keeps it as the cause."""
    for candidate in (error, error.__cause__):
        if isinstance(candidate, ClientError):
            return candidate
    return None


def _code(answer: ClientError) -> str:
    return str(answer.response.get("Error", {}).get("Code", ""))


def _status(answer: ClientError) -> int:
    return int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _error_text(error: BaseException) -> str:
    """S3's status and code, else the exception's class: library messages may contain URLs."""
    answer = _answer(error)
    if answer is None:
        return type(error).__name__
    status, code = str(_status(answer)), _code(answer)
    return status if code in ("", status) else f"{status} {code}"


def _endpoint_text(endpoint: str | None) -> str:
    """Scheme, host and port of an endpoint."""
    if not endpoint:
        return "AWS"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
