"""What S3 answers under load and when something is wrong: what is tried again, what is final, what to say.

botocore and s3fs are each set to a single attempt (`dfn_ray.storage.s3`); how often and how long is in `retries`.
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
"""Throttling and the server's own trouble. A HEAD has no body, so often only this tells (botocore's _retry.json)."""
TRANSIENT_CODES = frozenset(
    {
        "SlowDown",
        "InternalError",  # also inside a 200, for completed uploads
        "ServiceUnavailable",
        "RequestTimeout",  # 400: the server waited for the body
        "IncompleteBody",  # 400: the body broke off on its way there
        "BadDigest",  # 400: the body was damaged on its way there
        "XAmzContentSHA256Mismatch",
        "OperationAborted",  # 409: another operation on the object is under way
        "ConditionalRequestConflict",  # 409: another conditional write is under way
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
CONDITION_CODES = ("412", "PreconditionFailed")
"""The answer to a write under IfNoneMatch or IfMatch, or to a read under IfMatch, whose condition does not hold."""
TRANSIENT_EXCEPTIONS = (
    HTTPClientError,  # resets, closed connections, reads that time out, bodies that break off
    IncompleteReadError,  # a body shorter than its Content-Length
    ClientPayloadError,  # the same, as aiohttp sees it
    ResponseParserError,  # throttling that answers with half an XML
    TimeoutError,  # an attempt that drags on
)
DOUBTFUL_STATUS = frozenset({403})
"""S3 under load answers AccessDenied to requests that it serves a moment later (ray-project/ray issues 35826, 55055)."""
DOUBTFUL_EXCEPTIONS = (
    EndpointConnectionError,  # nobody listens, or the name does not resolve
    ConnectTimeoutError,
    NoCredentialsError,  # the instance's metadata service, asked by too many processes at once
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
    "head_object": "s3:GetObject and s3:ListBucket",  # without the latter, an absent object is a 403
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
"""All that a request raises when it, and not the program, is at fault."""


def attempts_for(error: BaseException, *, served_before: bool) -> int:
    """How often in all a request is tried that failed like this. Final errors: once."""
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
    """The code of S3's answer, "" when there was none."""
    answer = _answer(error)
    return _code(answer) if answer is not None else ""


def explained(
    error: Exception, *, method: str, bucket: str, endpoint: str | None, attempts: int
) -> Exception:
    """What to raise in the end for an error of S3: FileNotFoundError as it is, else RefusalError with a sentence that helps."""
    code = code_of(error)
    if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
        return error
    if code in CONDITION_CODES:
        return ConditionFailedError(f"{method} in bucket {bucket}: its condition does not hold")
    place = _place(endpoint)
    if why := _denial(error, code, method, bucket, place):
        return RefusalError(why, Verdict.ACCESS)
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError) and not _was_connected(
        error
    ):
        return RefusalError(
            f"{place} cannot be reached; check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the network",
            # Where it has answered before, more than one attempt was made: the address is right then.
            Verdict.ACCESS if attempts == 1 else Verdict.PASSING,
        )
    if attempts > 1:
        why = f"{method} failed {attempts} times, at last with {_said(error)} at {place}"
        return RefusalError(why, Verdict.PASSING)
    answer = _answer(error)
    refused = answer is not None and 300 <= _status(answer) < 500
    why = f"{method} failed with {_said(error)} at {place}; check the URI and AWS_* and FSSPEC_S3_* settings"
    return RefusalError(why, Verdict.ACCESS if refused else Verdict.FINAL)


def _denial(error: Exception, code: str, method: str, bucket: str, place: str) -> str | None:
    """What is wrong and what to do, where the user can change it; None for all else."""
    why: str | None = None
    if code == "NoSuchBucket":
        why = f"there is no bucket {bucket} at {place}; create it, or check the URI and AWS_ENDPOINT_URL"
    elif code in _EXPIRED:
        why = (
            f"the credentials have expired ({code}); get new ones (AWS_SESSION_TOKEN goes with the key) "
            "and run the same command again, it goes on"
        )
    elif code in _NOT_ACCEPTED:
        why = f"{place} does not accept the credentials ({code}); check {_CREDENTIALS}"
    elif isinstance(error, PermissionError) or code == "403":
        why = (
            f"no right to {method} in bucket {bucket} at {place} ({_said(error)}); it needs "
            f"{_RIGHTS.get(method, _WRITE_RIGHT)}. Where the requester pays: FSSPEC_S3_REQUESTER_PAYS=true"
        )
    elif code == "400":
        why = (
            f"{place} takes {method} for malformed and gives no reason; often the credentials have expired, "
            "AWS_DEFAULT_REGION is not the bucket's, or FSSPEC_S3_ANON is set for a bucket that is not public"
        )
    elif isinstance(error, NoCredentialsError):
        why = f"no credentials for bucket {bucket}; set {_CREDENTIALS}; for a public bucket FSSPEC_S3_ANON=true"
    elif isinstance(
        error,
        CredentialRetrievalError | PartialCredentialsError | ProfileNotFound | ConfigParseError,
    ):
        why = f"no credentials could be read ({_said(error)}); check {_CREDENTIALS}"
    elif isinstance(error, SSLError):
        why = f"the certificate of {place} is not trusted; check AWS_ENDPOINT_URL and AWS_CA_BUNDLE"
    elif isinstance(error, ValueError):
        why = "the settings of the connection are wrong; check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION"
    return why


def _was_connected(error: BaseException) -> bool:
    """True for a reset before an answer, to which aiobotocore gives the name of an endpoint that is not there."""
    return isinstance(error, EndpointConnectionError) and not isinstance(
        error.kwargs.get("error"), ClientConnectorError
    )


def _answer(error: BaseException) -> ClientError | None:
    """S3's answer in an error of botocore, or of s3fs, which keeps it as the cause."""
    for candidate in (error, error.__cause__):
        if isinstance(candidate, ClientError):
            return candidate
    return None


def _code(answer: ClientError) -> str:
    return str(answer.response.get("Error", {}).get("Code", ""))


def _status(answer: ClientError) -> int:
    return int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _said(error: BaseException) -> str:
    """An error in a few words. Exceptions of the libraries print URLs, so of those only the name, and S3's own code."""
    answer = _answer(error)
    if answer is None:
        return type(error).__name__
    status, code = str(_status(answer)), _code(answer)
    return status if code in ("", status) else f"{status} {code}"


def _place(endpoint: str | None) -> str:
    """An endpoint without what else a URL may hold."""
    if not endpoint:
        return "AWS"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
