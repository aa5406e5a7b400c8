"""Which fsspec filesystem a URI stands for, and what its errors come out as."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from dfn_ray.errors import MissingFileError, StorageAccessError, StorageError
from dfn_ray.uris import sayable, secret_in

READ_AHEAD_BYTES = 8 * 2**20
"""Bytes fetched beyond what is asked for when a file is walked front to back, and of a stream sent at a time.

What a reader holds of its file: one such block, and as long as a request lasts what comes in beside it.
"""
_CLIENTS = ("aiohttp", "azure", "gcsfs", "google", "httpcore", "httpx", "httpx2", "huggingface_hub")
"""Packages under gs://, az:// and hf:// whose errors of their own are no OSError."""
_S3 = ("s3", "s3a")
_EXTRAS = {
    "gs": "gcs", "gcs": "gcs",
    "az": "azure", "abfs": "azure", "abfss": "azure",
    "hf": "hf",
}  # fmt: skip
"""Scheme -> the extra of dfn_ray that brings what reads it."""


def filesystem(uri: str) -> Any:
    """The fsspec filesystem of a URI. Raises StorageError for an unknown scheme, an absent extra, a secret in it."""
    if where := secret_in(uri):
        raise StorageAccessError(
            f"a {uri.partition('://')[0]}:// URI holds {where}, which would end up in logs; it is not repeated here. "
            "Leave it out and give credentials by the environment, as the store's own tools take them"
        )
    protocol = _protocol(uri)
    if protocol in _S3:
        # Only who needs it loads it: 20 MiB and 0.2 s a process.
        from dfn_ray.storage.s3 import s3

        return s3()
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        how = f"pip install 'dfn_ray[{extra}]'" if extra else f"install what it needs: {error}"
        raise StorageAccessError(f"{uri}: {protocol}:// cannot be read yet; {how}") from error
    except ValueError as error:
        raise StorageAccessError(f"{uri}: no storage is known for {protocol}://: {error}") from None


def is_local(uri: str) -> bool:
    """True for a path of this machine."""
    return _protocol(uri) in LocalFileSystem.protocol


def _protocol(uri: str) -> str:
    """The scheme of a URI. A path from the root has none, whatever it holds: `/data/a::b` is no chain of fsspec's."""
    return "file" if uri.startswith("/") else get_protocol(uri)


class told:
    """Turns a store's own exceptions into StorageError that says what was tried where."""

    def __init__(self, uri: str, verb: str) -> None:
        self.uri, self.verb = sayable(uri), verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise MissingFileError(
                f"{self.uri}: not found (tried to {self.verb} it); check the URI"
            ) from error
        if isinstance(error, PermissionError):
            raise StorageAccessError(
                f"{self.uri}: no right to {self.verb} it: {error}; check credentials and rights"
            ) from error
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS:
            raise StorageError(f"{self.uri}: cannot {self.verb} it: {error}") from error
