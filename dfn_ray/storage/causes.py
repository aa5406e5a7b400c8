"""Classification of store errors: file missing, no access, transient, or unrelated to the store.

Clients wrap one error in another: fsspec raises FileNotFoundError from a refused connection, the
hub's client from a 429. So the whole chain of causes is examined, and a server's response in it
outranks the exception on top.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import Any

from dfn_ray.errors import MissingFileError, SentWhole, StorageAccessError, StorageError
from dfn_ray.storage import retries


class Verdict(Enum):
    """The class of a failed request."""

    MISSING = "the store reports that the file does not exist"
    ACCESS = "the user can fix it: permissions, credentials, settings"
    DENIED = "access denied, which overloaded servers also answer to requests that later succeed"
    TRANSIENT = "transient"
    RARELY_TRANSIENT = "seldom transient"
    FINAL = "permanent"

    @property
    def error(self) -> type[StorageError]:
        """The exception class to raise."""
        if self is Verdict.MISSING:
            return MissingFileError
        return StorageAccessError if self in (Verdict.ACCESS, Verdict.DENIED) else StorageError

    @property
    def attempts(self) -> int:
        """Total number of attempts at a request that fails this way."""
        if self is Verdict.TRANSIENT:
            return retries.POLICY.attempts
        doubtful = self in (Verdict.DENIED, Verdict.RARELY_TRANSIENT)
        return retries.POLICY.doubtful_attempts if doubtful else 1


class RefusalError(SentWhole, OSError):
    """A failed request whose verdict is known where it is raised."""

    def __init__(
        self, message: str, verdict: Verdict, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.retry_after_s = retry_after_s


class ConditionFailedError(OSError):
    """A store's answer that a write's condition fails (412): the file exists, or has changed."""


class AbsentFileError(SentWhole, FileNotFoundError):
    """A web server's answer that a URL does not exist; `status` is 404 or 410."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(url)
        self.status = status


_CLIENTS = frozenset(
    {
        "adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "http",
        "httpcore", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3", "yarl",
    }
)  # fmt: skip
"""Client packages of the stores. Many of their exceptions are not OSErrors."""
_NO_ROOT = frozenset(
    {
        "BucketNotFoundError", "GatedRepoError", "HFValidationError", "RepositoryNotFoundError",
        "RevisionNotFoundError",
    }
)  # fmt: skip
"""The hub's exceptions for an absent or hidden repository, which imply nothing about a file in
it."""
_SETTINGS = frozenset(
    {
        "ClientAuthenticationError", "DefaultCredentialsError", "InvalidURL",
        "InvalidUrlClientError", "InvalidUrlRedirectClientError", "LocationParseError",
        "MissingSchema", "NonHttpUrlClientError", "NonHttpUrlRedirectClientError", "RefreshError",
        "TooManyRedirects", "UnsupportedProtocol",
    }
)  # fmt: skip
"""Clients' exceptions for problems that the user can fix."""
_CODED = ("gcsfs", "google")
"""Packages whose exceptions keep a response's status as `code`."""
_ABSENT = (404, 410)
_STATUS = re.compile(r"[1-9][0-9]{2}")
_NO_ROOT_CODES = ("ContainerNotFound", "NoSuchBucket", "AccountIsDisabled", "FilesystemNotFound")
_PATH_ERRNOS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EROFS)
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def verdict_of(error: BaseException, *, handled: BaseException | None = None) -> Verdict | None:
    """The verdict on an error and its causes; None if it does not come from a store or a disk.

    `handled` is the exception that was being handled when the request was made: Python adds it to
    the chain, but it is not a cause.
    """
    if isinstance(error, MemoryError | ImportError):
        return None
    chain = list(_chain(error, handled))
    for link in chain:
        if isinstance(link, RefusalError):
            return link.verdict
    names = {type(link).__name__ for link in chain}
    if names & (_NO_ROOT | _SETTINGS):
        return Verdict.ACCESS
    for link in chain:
        if (status := _status(link)) is not None:
            return _verdict_of_response(link, status)
    if any(_is_transient(link) for link in chain):
        return _verdict_of_connection(chain)
    top = next((link for link in chain if isinstance(link, OSError)), None)
    return _verdict_of_os_error(top) if top is not None else None


def attempts_for(error: BaseException) -> int:
    """Total number of attempts at a request that failed with this error."""
    verdict = verdict_of(error)
    return verdict.attempts if verdict is not None else 1


def verdict_of_status(status: int) -> Verdict:
    """The verdict on an unexpected response status."""
    if status in _ABSENT:
        return Verdict.MISSING
    if status == 403:
        return Verdict.DENIED
    if status in (401, 402, 407, 451):
        return Verdict.ACCESS
    passing = status in (408, 425, 429) or (status >= 500 and status not in (501, 505))
    return Verdict.TRANSIENT if passing else Verdict.RARELY_TRANSIENT


def _chain(error: BaseException | None, handled: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception and its causes, outermost first."""
    seen: set[int] = set()
    while error is not None and error is not handled and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _status(error: BaseException) -> int | None:
    """The response status that a client's exception holds; None without a response."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        found = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        found = [getattr(response, "status_code", None)]
    names = ["status", "status_code"]
    # Not aiohttp's `code`, which it also sets for responses that it cannot parse.
    if type(error).__module__.partition(".")[0] in _CODED:
        names.append("code")
    found += [getattr(error, name, None) for name in names]
    numbers = (
        int(n) for n in found if isinstance(n, int) or (isinstance(n, str) and _STATUS.fullmatch(n))
    )
    return next((number for number in numbers if 400 <= number < 600), None)


def _verdict_of_response(error: BaseException, status: int) -> Verdict:
    code = str(getattr(error, "error_code", "") or "")
    bucket = "bucket does not exist" in str(error)  # Google's message, which comes without a code
    if status in _ABSENT and (code in _NO_ROOT_CODES or bucket):
        return Verdict.ACCESS
    return verdict_of_status(status)


def _is_transient(error: BaseException) -> bool:
    """True for a failure of the connection, not of a path."""
    package = type(error).__module__.partition(".")[0]
    return package in _CLIENTS or isinstance(
        error, TimeoutError | ConnectionError | socket.gaierror | ssl.SSLError | EOFError
    )


def _verdict_of_connection(chain: list[BaseException]) -> Verdict:
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        return Verdict.ACCESS
    named = any(
        isinstance(link, socket.gaierror)
        or isinstance(getattr(link, "os_error", None), socket.gaierror)
        for link in chain
    )
    return Verdict.RARELY_TRANSIENT if named else Verdict.TRANSIENT


def _verdict_of_os_error(error: OSError) -> Verdict:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Verdict.MISSING
    if isinstance(error, PermissionError) or error.errno in _PATH_ERRNOS:
        return Verdict.ACCESS
    if str(error).startswith("Forbidden"):  # gcsfs' message for a 403, without the response
        return Verdict.DENIED
    return Verdict.FINAL if error.errno in _DISK_ERRNOS else Verdict.RARELY_TRANSIENT
