"""Files of remote stores, and the filesystems that retry nothing, or not enough, by themselves."""

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
        "cat_file", "exists", "invalidate_cache", "resolve_path", "find", "glob", "info", "isdir", "isfile", "ls", "makedirs", "pipe_file", "rm", "rm_file",
    }
)  # fmt: skip
"""Methods that are requests, some of them only of the hub's client; each the same when done twice."""


class Source(Protocol):
    """One file of a store as it was when it was opened."""

    size: int
    version: str | None

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, all of them."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class RemoteFile(AbstractBufferedFile):
    """A file of a store, opened for reading; its reads raise StorageError and ShardChangedError, no error of a client."""

    def __init__(
        self,
        fs: Any,
        uri: str,
        source: Source,
        *,
        block_size: int | None = None,
        cache_type: str = "readahead",
        **_: Any,
    ) -> None:
        self._uri, self._source = uri, source
        self.version = source.version
        """The store's version of the content (an ETag) that all reads are of; None where it has none."""
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
        """Close the file and what lies below."""
        if not self.closed:
            super().close()
            self._source.close()


class ClientSource:
    """A file as the client of a store opened it."""

    def __init__(self, file: Any, *, retries_itself: bool = False) -> None:
        self.size = int(file.size)
        self.version = version_in(file.details)
        self._file, self._retries_itself = file, retries_itself

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, all of them, by the retry policy."""
        if self._retries_itself:
            return self._once(start, end)
        return retries.retried(partial(self._once, start, end), attempts_for)

    def close(self) -> None:
        """Close the client's file."""
        self._file.close()

    def _once(self, start: int, end: int) -> bytes:
        data = self._file._fetch_range(start, end)
        if len(data) != end - start:
            raise RefusalError(f"{len(data):,} bytes came of {end - start:,}", Verdict.PASSING)
        return data


class Retried:
    """A filesystem of fsspec whose requests are tried again by the one policy. What is no request passes through."""

    def __init__(self, inner: Any, protocol: str) -> None:
        self.inner, self._protocol = inner, protocol

    def __reduce__(self) -> Any:
        # Whoever it is sent to has its own environment; credentials do not travel.
        return (filesystem, (f"{self._protocol}://",))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return self.request(value) if name in _REQUESTS else value

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """The file at a path; for reading one whose reads are tried again."""
        if mode != "rb":
            return self.inner.open(path, mode, **options)
        plain = options | {"cache_type": "none"}
        file = self.request(self.inner.open)(path, "rb", **plain)
        source = self.request(ClientSource)(file)  # the first to ask for its size
        return RemoteFile(self, self.inner.unstrip_protocol(path), source, **options)

    def request(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call of the client that is tried again by the policy."""
        return lambda *args, **kwargs: retries.retried(
            partial(_settings_refused, call, *args, **kwargs), attempts_for
        )


def _settings_refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a client, whose ValueErrors are about settings and paths."""
    try:
        return call(*args, **kwargs)
    except json.JSONDecodeError as error:  # half an answer, or a proxy's page
        raise RefusalError(f"no JSON: {error}", Verdict.PASSING) from error
    except (ValueError, NotImplementedError) as error:
        raise RefusalError(str(error), Verdict.ACCESS) from error
