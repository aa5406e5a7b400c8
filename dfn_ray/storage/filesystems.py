"""The fsspec filesystem of a URI, and the conversion of its errors to StorageError."""

from __future__ import annotations

import sys
from typing import Any

import fsspec

from dfn_ray.errors import DfnRayError, InputError, StorageAccessError
from dfn_ray.storage.causes import Verdict, verdict_of
from dfn_ray.storage.local import Local
from dfn_ray.storage.retries import error_text
from dfn_ray.uris import (
    EXTRAS,
    HTTP_SCHEMES,
    LOCAL_SCHEMES,
    S3_SCHEMES,
    SCHEMES,
    normalised,
    require_valid_uri,
    scheme_of,
    utf8_safe,
)

READ_AHEAD_BYTES = 8 * 2**20
"""Size of the read-ahead of sequential reads, and of the pieces of a streamed write.

A reader holds one such block, and a second one while a request is in flight.
"""


def filesystem(uri: str) -> Any:
    """The fsspec filesystem of a URI; its requests follow the policy of `dfn_ray.storage.retries`.

    Raises InputError for an unknown scheme, StorageAccessError for an extra that is not installed.
    """
    require_valid_uri(uri)
    protocol = scheme_of(normalised(uri))
    if protocol not in SCHEMES:  # `a::b` has no `://`
        raise InputError(
            f"{uri}: {protocol}:: chains stores, which is not supported. For a path, write ./{uri}"
        )
    # Clients are loaded on demand: S3's takes 20 MiB and 0.2 s per process.
    if protocol in S3_SCHEMES:
        from dfn_ray.storage.s3 import s3

        return s3()
    if protocol in HTTP_SCHEMES:
        from dfn_ray.storage.http import Http

        return Http()
    if protocol in LOCAL_SCHEMES:
        return Local()
    try:
        found = fsspec.filesystem(protocol)
    except ImportError as error:
        raise StorageAccessError(
            f"{uri}: {protocol}:// needs an extra that is not installed. Run "
            f"`pip install 'dfn_ray[{EXTRAS[protocol]}]'`"
        ) from error
    if protocol == "hf":
        from dfn_ray.storage.hub import Hub

        return Hub(found, protocol)
    if protocol in EXTRAS:
        from dfn_ray.storage.remote import RetryingFilesystem

        return RetryingFilesystem(found, protocol)
    return found


def is_local(uri: str) -> bool:
    """True for a path of this machine."""
    return scheme_of(uri) in LOCAL_SCHEMES


def is_s3(uri: str) -> bool:
    """True for an object of S3 or of an S3-compatible store."""
    return scheme_of(uri) in S3_SCHEMES


class storage_errors:
    """Converts exceptions of a store or a disk to StorageError, naming the URI and the operation.

    Other exceptions pass unchanged: MemoryError, ImportError, programming errors.
    """

    def __init__(self, uri: str, verb: str) -> None:
        self.uri, self.verb = utf8_safe(uri), verb

    def __enter__(self) -> None:
        self._handled = sys.exception()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, DfnRayError):
            return
        verdict = verdict_of(error, handled=self._handled)
        if verdict is None:
            return
        if verdict is Verdict.MISSING:
            message = f"{self.uri}: not found (tried to {self.verb} it); check the URI"
        elif isinstance(error, PermissionError):
            message = (
                f"{self.uri}: no permission to {self.verb} it: {error}; check credentials and "
                "permissions"
            )
        else:
            message = (
                f"{self.uri}: cannot {self.verb} it: {error_text(error)}{_ADVICE.get(verdict, '')}"
            )
        raise verdict.error(message) from error


_ADVICE = {
    Verdict.DENIED: "; check credentials and permissions",
    Verdict.TRANSIENT: "; run the same command again to resume",
}
