"""What an exception of a store says: nothing is there, no access, a fault that may pass, or nothing about the store.

Clients wrap one error in another: fsspec raises FileNotFoundError from a refused connection, the hub's client from a
429. So the whole chain of causes is judged, and an answer of the server in it counts for more than the exception on top.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import Any

from dfn_ray.errors import MissingFileError, StorageAccessError, StorageError
from dfn_ray.storage import retries


class Verdict(Enum):
    """What an error says about a request."""

    MISSING = "the store says that nothing is there"
    ACCESS = "the user can change it: rights, credentials, settings"
    DENIED = (
        "no rights, which servers under load also say of requests that they serve a moment later"
    )
    PASSING = "may pass"
    DOUBTFUL = "seldom passes"
    FINAL = "fails for good"

    @property
    def error(self) -> type[StorageError]:
        """The exception that says so."""
        if self is Verdict.MISSING:
            return MissingFileError
        return StorageAccessError if self in (Verdict.ACCESS, Verdict.DENIED) else StorageError

    @property
    def attempts(self) -> int:
        """Of a request that fails so, in all."""
        if self is Verdict.PASSING:
            return retries.POLICY.attempts
        doubtful = self in (Verdict.DENIED, Verdict.DOUBTFUL)
        return retries.POLICY.doubtful_attempts if doubtful else 1


class RefusalError(OSError):
    """A failure of a request whose verdict is known where it is raised."""

    def __init__(
        self, message: str, verdict: Verdict, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.retry_after_s = retry_after_s


class ConditionFailedError(OSError):
    """A store's answer that a file is there which may not be, or is not the version that it had to be (412)."""


class AbsentFileError(FileNotFoundError):
    """A web server's answer that nothing is at a URL; `status` is 404 or 410."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(url)
        self.status = status


_CLIENTS = frozenset(
    {
        "adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "http", "httpcore", "httpx",
        "httpx2", "huggingface_hub", "requests", "urllib3", "yarl",
    }
)  # fmt: skip
"""Packages below the stores. Their own exceptions are often no OSError."""
_NO_ROOT = frozenset(
    {
        "BucketNotFoundError", "GatedRepoError", "HFValidationError", "RepositoryNotFoundError",
        "RevisionNotFoundError",
    }
)  # fmt: skip
"""The hub's names for a repository that is absent or hidden: says nothing about a file in it."""
_SETTINGS = frozenset(
    {
        "ClientAuthenticationError", "DefaultCredentialsError", "InvalidURL", "InvalidUrlClientError",
        "InvalidUrlRedirectClientError", "LocationParseError", "MissingSchema",
        "NonHttpUrlClientError", "NonHttpUrlRedirectClientError", "RefreshError", "TooManyRedirects", "UnsupportedProtocol",
    }
)  # fmt: skip
"""Clients' names for what the user can change."""
_CODED = ("gcsfs", "google")
"""Packages whose exceptions call the status of an answer `code`."""
_ABSENT = (404, 410)
_STATUS = re.compile(r"[1-9][0-9]{2}")
_NO_ROOT_CODES = ("ContainerNotFound", "NoSuchBucket", "AccountIsDisabled", "FilesystemNotFound")
_PATH_ERRNOS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EROFS)
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def verdict_of(error: BaseException, *, handled: BaseException | None = None) -> Verdict | None:
    """What an error, with all its causes, says about a request; None when it is none of a store or disk.

    `handled` is what was being handled when the request was made; Python puts it into the chain, but it is no cause.
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
            return _of_answer(link, status)
    if any(_is_passing(link) for link in chain):
        return _of_connection(chain)
    top = next((link for link in chain if isinstance(link, OSError)), None)
    return _of_os_error(top) if top is not None else None


def attempts_for(error: BaseException) -> int:
    """How often in all a request is tried that failed like this."""
    verdict = verdict_of(error)
    return verdict.attempts if verdict is not None else 1


def of_status(status: int) -> Verdict:
    """What the status of an answer says that is not the one asked for."""
    if status in _ABSENT:
        return Verdict.MISSING
    if status == 403:
        return Verdict.DENIED
    if status in (401, 402, 407, 451):
        return Verdict.ACCESS
    passing = status in (408, 425, 429) or (status >= 500 and status not in (501, 505))
    return Verdict.PASSING if passing else Verdict.DOUBTFUL


def _chain(error: BaseException | None, handled: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from, outermost first."""
    seen: set[int] = set()
    while error is not None and error is not handled and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _status(error: BaseException) -> int | None:
    """The status of the answer that a client's exception holds, None where there was none."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        found = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        found = [getattr(response, "status_code", None)]
    names = ["status", "status_code"]
    if (
        type(error).__module__.partition(".")[0] in _CODED
    ):  # aiohttp has codes for answers it cannot parse
        names.append("code")
    found += [getattr(error, name, None) for name in names]
    numbers = (
        int(n) for n in found if isinstance(n, int) or (isinstance(n, str) and _STATUS.fullmatch(n))
    )
    return next((number for number in numbers if 400 <= number < 600), None)


def _of_answer(error: BaseException, status: int) -> Verdict:
    code = str(getattr(error, "error_code", "") or "")
    bucket = "bucket does not exist" in str(error)  # Google's words, which has no code for it
    if status in _ABSENT and (code in _NO_ROOT_CODES or bucket):
        return Verdict.ACCESS
    return of_status(status)


def _is_passing(error: BaseException) -> bool:
    """True for a failure of the connection rather than of a path."""
    package = type(error).__module__.partition(".")[0]
    return package in _CLIENTS or isinstance(
        error, TimeoutError | ConnectionError | socket.gaierror | ssl.SSLError | EOFError
    )


def _of_connection(chain: list[BaseException]) -> Verdict:
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        return Verdict.ACCESS
    named = any(
        isinstance(link, socket.gaierror)
        or isinstance(getattr(link, "os_error", None), socket.gaierror)
        for link in chain
    )
    return Verdict.DOUBTFUL if named else Verdict.PASSING


def _of_os_error(error: OSError) -> Verdict:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Verdict.MISSING
    if isinstance(error, PermissionError) or error.errno in _PATH_ERRNOS:
        return Verdict.ACCESS
    if str(error).startswith("Forbidden"):  # gcsfs' words for a 403, without the answer
        return Verdict.DENIED
    return Verdict.FINAL if error.errno in _DISK_ERRNOS else Verdict.DOUBTFUL
