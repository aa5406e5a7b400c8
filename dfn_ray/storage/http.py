"""Reading files over HTTP, from web servers and from the hub.

fsspec's own class reports most failures as FileNotFoundError, cannot seek if a server omits the
length or compresses, and returns ranges unchecked. Here a range is returned only if it is complete
and of the same version as before; otherwise it is requested again, and if a server truncates it,
the rest is requested.

A file is opened by a GET with a range from its start: the one response contains size, version and
first bytes, and shows whether the server supports ranges. If it does not, or compresses the file,
the whole file is fetched into a temporary file. A body with neither a length nor chunks ends with
its connection, complete or not. It is compared with the size that an earlier range stated; without
one it is fetched until two bodies in a row are equal, which costs a second download but no second
temporary file. A body is read at most up to the first excess byte: beyond the requested range, the
announced length, or WHOLE_LIMIT_BYTES.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import IO, Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from fsspec.asyn import sync, sync_wrapper
from fsspec.implementations.http import HTTPFileSystem

from dfn_ray.errors import ShardChangedError, shortened
from dfn_ray.storage import http_bodies as bodies
from dfn_ray.storage import http_headers, retries
from dfn_ray.storage.causes import (
    AbsentFileError,
    RefusalError,
    Verdict,
    attempts_for,
    verdict_of_status,
)
from dfn_ray.storage.remote import RemoteFile
from dfn_ray.uris import utf8_safe

_FIRST_BYTES = 64 * 2**10
"""Size of the first request: enough to recognize a shard's format, and most images in full."""
_MIN_RANGE_BYTES = 4 * 2**10
"""Lower bound on a response that is shorter than the requested range (RFC 9110, 15.3.7): servers
and proxies that truncate ranges do so at 64 KiB and more; one that returns a few bytes at a time
would block a task for hours."""


class Http(HTTPFileSystem):
    """Files of web servers, read in complete ranges; incomplete ones are requested again."""

    def __init__(self, **options: Any) -> None:
        # aiohttp decodes without checks: a truncated gzip stream would look complete.
        client = {"auto_decompress": False} | options.pop("client_kwargs", {})
        super().__init__(client_kwargs=client, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> RemoteFile:  # pyright: ignore[reportIncompatibleMethodOverride]
        if mode != "rb":
            raise RefusalError("files on web servers are read-only", Verdict.ACCESS)
        return self.open_url(path, path, {}, options)

    def open_url(
        self, uri: str, url: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> RemoteFile:
        """Opens the file at a URL for reading, with headers; `uri` is its name in errors."""
        source = HttpSource(self, url, headers)
        sync(self.loop, source.open)
        return RemoteFile(self, uri, source, **options)

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        source = HttpSource(self, url, {})
        await source.open(first_bytes=1, whole=False)
        return {
            "name": url,
            "size": source.size,
            "type": "file",
            "ETag": source.version,
            "Last-Modified": source.modified,
        }

    async def _ls(self, url: str, detail: bool = True, **kwargs: Any) -> Any:
        # The client would read any page in full and take its links for files.
        raise RefusalError(
            "web servers cannot list folders; give the full URL of each file", Verdict.ACCESS
        )

    ls = sync_wrapper(_ls)

    async def _exists(self, path: str, strict: bool = False, **kwargs: Any) -> bool:
        try:
            await self._info(path)
        except FileNotFoundError:
            return False
        return True

    async def _cat_file(
        self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        source = HttpSource(self, url, {})
        await source.open()
        with closing(source):
            begin, stop, _ = slice(start, end).indices(source.size)
            return await source.fetch_range(begin, stop) if begin < stop else b""


class HttpSource:
    """One file of a web server: its size, its version, and any range of it."""

    def __init__(self, server: Http, url: str, headers: Mapping[str, str]) -> None:
        self.size = 0
        self.version: str | None = None
        self.modified: str | None = None
        """Last-Modified, unchanged. It differs between mirrors, so it is never compared."""
        self._server, self._url = server, url
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._first = b""
        self._whole: IO[bytes] | None = None
        self._unconfirmed: tuple[int, bytes] | None = None
        """Size and digest of the last whole body without an end marker."""

    async def open(self, *, first_bytes: int = _FIRST_BYTES, whole: bool = True) -> None:
        """Fetches first bytes, size and version, or the whole file if there are no ranges."""

        async def once() -> None:
            async with self._get(0, first_bytes) as (answer, extend):
                self.version = http_headers.version(answer)
                self.modified = http_headers.modified(answer)
                if bounds := http_headers.byte_range(answer):
                    begin, last, size = bounds
                    _require(begin == 0 and _advances(0, last + 1, min(first_bytes, size)), answer)
                    self._first = await bodies.body(answer, last + 1)
                    self.size = size
                elif not whole:
                    self.size = http_headers.length(answer) or 0
                elif answer.status == 200:
                    await self._keep_whole(answer, extend)
            if whole and not self._first and self._whole is None:
                await self._get_whole()

        await retries.call_with_retries_async(once, attempts_for)

    def fetch(self, start: int, end: int) -> bytes:
        """All bytes from `start` to `end`. Raises ShardChangedError if the file has changed."""
        request: Any = sync  # it is annotated as returning nothing
        return request(self._server.loop, self.fetch_range, start, end)

    async def fetch_range(self, start: int, end: int) -> bytes:
        """As `fetch`, on the event loop."""
        if self._whole is not None:
            return self._from_whole(start, end)
        if end <= len(self._first):
            return self._first[start:end]

        data = bytearray()
        while len(data) < end - start:
            once = partial(self._next_of_range, start + len(data), end)
            data += await retries.call_with_retries_async(once, attempts_for)
        return bytes(data)

    async def _next_of_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, or up to where the server truncates its response."""
        async with self._get(start, end) as (answer, extend):
            if bounds := http_headers.byte_range(answer):
                begin, last, size = bounds
                self._require_unchanged(size, http_headers.version(answer))
                _require(begin == start and _advances(start, last + 1, end), answer)
                return await bodies.body(answer, last + 1 - start)
            if answer.status == 200:
                await self._keep_whole(answer, extend)
        if self._whole is None:
            await self._get_whole()
        return self._from_whole(start, end)

    def close(self) -> None:
        """Closes the temporary file, if any."""
        if self._whole is not None:
            self._whole.close()

    @asynccontextmanager
    async def _get(
        self, start: int = 0, end: int | None = None
    ) -> AsyncIterator[tuple[ClientResponse, Callable[[], None]]]:
        """The response to a GET, with a range if `end` is given.

        Raises FileNotFoundError and RefusalError for other responses.
        """
        policy = retries.POLICY
        session = await self._server.set_session()
        limits = ClientTimeout(total=None, sock_connect=policy.connect_s, sock_read=policy.stall_s)
        try:
            url = self._server.encode_url(self._url)
        except ValueError as error:
            raise RefusalError(f"invalid URL: {error}", Verdict.ACCESS) from error
        headers = dict(self._headers)
        if end is not None:
            headers["Range"] = f"bytes={start}-{end - 1}"
        async with (
            retries.attempt_limit() as extend,
            await _response(session, url, headers, limits) as answer,
        ):
            # Some servers answer 416 to any range of an empty file, which is then fetched whole.
            if answer.status not in (200, 206, 416):
                raise _response_error(answer, self._url)
            yield answer, extend

    async def _get_whole(self) -> None:
        async with self._get() as (answer, extend):
            _require(answer.status == 200, answer)
            await self._keep_whole(answer, extend)

    async def _keep_whole(self, answer: ClientResponse, extend: Callable[[], None]) -> None:
        """Stores the body of a response that is the whole file."""
        encoding = http_headers.encoding(answer)
        if encoding not in ("", "gzip", "x-gzip"):
            raise RefusalError(
                f"the server sends it with Content-Encoding {shortened(encoding)}, which was not "
                "requested",
                Verdict.ACCESS,
            )
        # If the server supported ranges at opening, a longer body is another file.
        most = self.size if self._first else bodies.WHOLE_LIMIT_BYTES
        kept = bodies.temporary()
        try:
            size = await bodies.copy(
                answer, kept, extend, bodies.WHOLE_LIMIT_BYTES if encoding else most
            )
            if encoding and size:
                with kept as encoded:
                    kept = bodies.temporary()
                    size = await asyncio.to_thread(bodies.decode, encoded, kept, most)
            await self._require_whole(answer, kept, size)
        except BaseException:
            kept.close()
            raise
        self.close()
        self.size, self.version = size, http_headers.version(answer)
        self._whole = kept

    async def _require_whole(self, answer: ClientResponse, kept: IO[bytes], size: int) -> None:
        """Raises ShardChangedError for another file's body, RefusalError for an incomplete one."""
        marked = http_headers.is_end_marked(answer)
        if self._first:
            cut = not marked and size < self.size
            self._require_unchanged(self.size if cut else size, http_headers.version(answer))
            if cut:
                raise bodies.length_error(f"{size:,}", self.size)
        elif not marked:
            found = size, await asyncio.to_thread(bodies.digest, kept)
            before, self._unconfirmed = self._unconfirmed, found
            if found != before:
                sizes = f"{before[0]:,} and {size:,}" if before else f"{size:,}"
                raise RefusalError(
                    f"the server states no length, and two downloads in a row differ: got {sizes} "
                    "bytes",
                    Verdict.TRANSIENT,
                )

    def _from_whole(self, start: int, end: int) -> bytes:
        assert self._whole is not None
        self._whole.seek(start)
        return self._whole.read(end - start)

    def _require_unchanged(self, size: int, version: str | None) -> None:
        """Raises ShardChangedError for a response about another file than the one opened."""
        if size != self.size or (self.version and version and version != self.version):
            now, then = _version_text(size, version), _version_text(self.size, self.version)
            raise ShardChangedError(
                f"{self._url}: changed while it was read: {now} now, {then} when it was opened; "
                "run the same command again"
            )


async def _response(
    session: ClientSession, url: Any, headers: Mapping[str, str], limits: ClientTimeout
) -> ClientResponse:
    """The response to a GET, its body not yet read."""
    try:
        return await session.get(url, headers=headers, timeout=limits)
    except ClientError:
        raise
    except ValueError as error:  # the client cannot parse a header
        raise RefusalError(f"not HTTP: {type(error).__name__}", Verdict.TRANSIENT) from error


def _version_text(size: int, version: str | None) -> str:
    return f"{size:,} bytes with ETag {version}" if version else f"{size:,} bytes"


def _advances(start: int, stop: int, end: int) -> bool:
    """True if a response up to `stop` reaches `end`, or is long enough to continue from."""
    return stop == end or start + _MIN_RANGE_BYTES <= stop < end


def _require(holds: bool, answer: ClientResponse) -> None:
    """Raises a transient RefusalError if a response does not match the request."""
    if not holds:
        span = shortened(utf8_safe(answer.headers.get("Content-Range", "no Content-Range")))
        raise RefusalError(
            f"the response does not match the request: {answer.status}, {span}", Verdict.TRANSIENT
        )


def _response_error(answer: ClientResponse, url: str) -> OSError:
    verdict = verdict_of_status(answer.status)
    if verdict is Verdict.MISSING:
        return AbsentFileError(url, answer.status)
    reason = shortened(utf8_safe(answer.reason or ""))
    after_s = http_headers.retry_after_s(answer)
    return RefusalError(f"{answer.status} {reason}", verdict, retry_after_s=after_s)
