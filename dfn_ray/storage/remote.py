"""Files of remote stores, and a wrapper for filesystems whose own retries are insufficient."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from fsspec.spec import AbstractBufferedFile

from dfn_ray.storage import retries
from dfn_ray.storage.causes import RefusalError, Verdict, attempts_for
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem, storage_errors
from dfn_ray.storage.store import version_in

_REQUESTS = frozenset(
    {
        "cat_file", "exists", "find", "glob", "info", "invalidate_cache", "isdir", "isfile", "ls",
        "makedirs", "pipe_file", "resolve_path", "rm", "rm_file",
    }
)  # fmt: skip
"""Methods that are requests, some of the hub's client only; all of them idempotent."""


class ByteSource(Protocol):
    """One version of a file of a store: the one that was opened."""

    size: int
    version: str | None

    def fetch(self, start: int, end: int) -> bytes:
        """All bytes from `start` to `end`."""
        ...

    def close(self) -> None:
        """Releases its resources."""
        ...


class RemoteFile(AbstractBufferedFile):
    """A file of a store, opened for reading.

    Its reads raise StorageError and ShardChangedError, never a client's own exception.
    """

    def __init__(
        self,
        fs: Any,
        uri: str,
        source: ByteSource,
        *,
        block_size: int | None = None,
        cache_type: str = "readahead",
        **_: Any,
    ) -> None:
        self._uri, self._source = uri, source
        self.version = source.version
        """The version (ETag) that all reads refer to; None without one."""
        super().__init__(
            fs,
            uri,
            block_size=block_size or READ_AHEAD_BYTES,  # pyright: ignore[reportArgumentType]
            cache_type=cache_type,
            size=source.size,
        )

    def _fetch_range(self, start: int, end: int) -> bytes:
        with storage_errors(self._uri, "read"):
            return self._source.fetch(start, min(end, self._source.size))

    def close(self) -> None:
        """Closes the file and its source."""
        if not self.closed:
            super().close()
            self._source.close()


class ClientSource:
    """A file opened by a store's client."""

    def __init__(self, file: Any, *, retries_itself: bool = False) -> None:
        self.size = int(file.size)
        self.version = version_in(file.details)
        self._file, self._retries_itself = file, retries_itself

    def fetch(self, start: int, end: int) -> bytes:
        """All bytes from `start` to `end`, by the retry policy."""
        if self._retries_itself:
            return self._fetch_once(start, end)
        return retries.call_with_retries(partial(self._fetch_once, start, end), attempts_for)

    def close(self) -> None:
        """Closes the client's file."""
        self._file.close()

    def _fetch_once(self, start: int, end: int) -> bytes:
        data = self._file._fetch_range(start, end)
        if len(data) != end - start:
            raise RefusalError(f"got {len(data):,} bytes of {end - start:,}", Verdict.TRANSIENT)
        return data


class RetryingFilesystem:
    """An fsspec filesystem whose requests follow the retry policy; other calls pass through."""

    def __init__(self, inner: Any, protocol: str) -> None:
        self.inner, self._protocol = inner, protocol

    def __reduce__(self) -> Any:
        # The receiving process uses its own environment; credentials are never sent.
        return (filesystem, (f"{self._protocol}://",))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return self.request(value) if name in _REQUESTS else value

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Opens the file at a path; for reading, one whose reads are retried."""
        if mode != "rb":
            return self.inner.open(path, mode, **options)
        plain = options | {"cache_type": "none"}
        file = self.request(self.inner.open)(path, "rb", **plain)
        source = self.request(ClientSource)(file)  # the first request for its size
        return RemoteFile(self, self.inner.unstrip_protocol(path), source, **options)

    def request(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a call of the client in the retry policy."""
        return lambda *args, **kwargs: retries.call_with_retries(
            partial(_with_settings_errors, call, *args, **kwargs), attempts_for
        )


def _with_settings_errors(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a client and converts its ValueErrors, which concern settings and paths."""
    try:
        return call(*args, **kwargs)
    except json.JSONDecodeError as error:  # a truncated response, or a proxy's page
        raise RefusalError(f"not JSON: {error}", Verdict.TRANSIENT) from error
    except (ValueError, NotImplementedError) as error:
        raise RefusalError(str(error), Verdict.ACCESS) from error
