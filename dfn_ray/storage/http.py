"""Reading over HTTP: files of web servers, and of the hub, whose files are served so.

fsspec's own class takes most failures for FileNotFoundError, cannot seek where a server gives no length or compresses,
and hands on whatever a range came out as. Here a range is handed on when all of it has come and it is of the same file
as before; else it is asked for again, and of one that a server cuts off the rest is asked for. A file is asked for by GET with a range from the start: the one answer has its
size, its version, its first bytes, and shows whether the server has ranges at all. Where it has none, or sends the
file compressed, the whole file is fetched, to a temporary file. A body that has neither a length nor chunks ends where
its connection ends, whether it is whole or not. It is compared with the size that an earlier range stated; without
one it is fetched until two bodies in a row are equal. That costs a second download, but no second temporary file. No body is
read further than to the first byte that is too many: beyond the range that was asked for, the length that was
announced, or WHOLE_LIMIT_BYTES.
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
from dfn_ray.storage.causes import AbsentFileError, RefusalError, Verdict, attempts_for, of_status
from dfn_ray.storage.remote import RemoteFile
from dfn_ray.uris import utf8_safe

_FIRST_BYTES = 64 * 2**10
"""Of the first request: what tells the format of a shard, and all of most images."""
_LEAST_RANGE_BYTES = 4 * 2**10
"""Of an answer that is shorter than the range asked for (RFC 9110, 15.3.7): servers and proxies that cut ranges do it at
64 KiB and more, and one that gives a few bytes at a time would hold a task for hours."""


class Http(HTTPFileSystem):
    """Files of web servers, read by ranges that are complete or asked for again."""

    def __init__(self, **options: Any) -> None:
        # What aiohttp decodes it does not check: a gzip stream that is cut off looks whole.
        client = {"auto_decompress": False} | options.pop("client_kwargs", {})
        super().__init__(client_kwargs=client, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> RemoteFile:  # pyright: ignore[reportIncompatibleMethodOverride]
        if mode != "rb":
            raise RefusalError("files of web servers can only be read", Verdict.ACCESS)
        return self.open_url(path, path, {}, options)

    def open_url(
        self, uri: str, url: str, headers: Mapping[str, str], options: Mapping[str, Any]
    ) -> RemoteFile:
        """The file at a URL, opened for reading with headers; `uri` names it in errors."""
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
        # The client takes the links of whatever page comes, read whole, for files.
        raise RefusalError("web servers do not list folders; name files in full", Verdict.ACCESS)

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
        """Last-Modified as it is. It differs between mirrors, and is compared with nothing."""
        self._server, self._url = server, url
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._first = b""
        self._whole: IO[bytes] | None = None
        self._unconfirmed: tuple[int, bytes] | None = None
        """Size and digest of the last whole body whose end nothing marked."""

    async def open(self, *, first_bytes: int = _FIRST_BYTES, whole: bool = True) -> None:
        """Ask for the first bytes, and with them for size and version; a server without ranges for the whole file."""

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

        await retries.retried_async(once, attempts_for)

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, all of them. Raises ShardChangedError when the file is another one now."""
        request: Any = sync  # its annotation has no answer
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
            data += await retries.retried_async(once, attempts_for)
        return bytes(data)

    async def _next_of_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` on, up to `end` or to where the server cuts its answers off."""
        async with self._get(start, end) as (answer, extend):
            if bounds := http_headers.byte_range(answer):
                begin, last, size = bounds
                self._compare(size, http_headers.version(answer))
                _require(begin == start and _advances(start, last + 1, end), answer)
                return await bodies.body(answer, last + 1 - start)
            if answer.status == 200:
                await self._keep_whole(answer, extend)
        if self._whole is None:
            await self._get_whole()
        return self._from_whole(start, end)

    def close(self) -> None:
        """Give back the temporary file, if there is one."""
        if self._whole is not None:
            self._whole.close()

    @asynccontextmanager
    async def _get(
        self, start: int = 0, end: int | None = None
    ) -> AsyncIterator[tuple[ClientResponse, Callable[[], None]]]:
        """The answer to a GET, with a range where there is an end; FileNotFoundError and RefusalError for others."""
        policy = retries.POLICY
        session = await self._server.set_session()
        limits = ClientTimeout(total=None, sock_connect=policy.connect_s, sock_read=policy.stall_s)
        try:
            url = self._server.encode_url(self._url)
        except ValueError as error:
            raise RefusalError(f"no URL: {error}", Verdict.ACCESS) from error
        headers = dict(self._headers)
        if end is not None:
            headers["Range"] = f"bytes={start}-{end - 1}"
        async with (
            retries.attempt_limit() as extend,
            await _answer(session, url, headers, limits) as answer,
        ):
            # 416 is what some servers answer for any range of an empty file; it is fetched whole then.
            if answer.status not in (200, 206, 416):
                raise _refusal(answer, self._url)
            yield answer, extend

    async def _get_whole(self) -> None:
        async with self._get() as (answer, extend):
            _require(answer.status == 200, answer)
            await self._keep_whole(answer, extend)

    async def _keep_whole(self, answer: ClientResponse, extend: Callable[[], None]) -> None:
        """Take the body of an answer that is the whole file."""
        kept = bodies.temporary()
        encoding = http_headers.encoding(answer)
        if encoding not in ("", "gzip", "x-gzip"):
            what = shortened(encoding)
            raise RefusalError(f"it comes as {what}, which was not asked for", Verdict.ACCESS)
        # Where the server had ranges when it was opened, what is longer is another file.
        most = self.size if self._first else bodies.WHOLE_LIMIT_BYTES
        try:
            size = await bodies.copy(
                answer, kept, extend, bodies.WHOLE_LIMIT_BYTES if encoding else most
            )
            if encoding and size:
                with kept as encoded:
                    kept = bodies.temporary()
                    size = await asyncio.to_thread(bodies.decoded, encoded, kept, most)
            await self._require_whole(answer, kept, size)
        except BaseException:
            kept.close()
            raise
        self.size, self.version = size, http_headers.version(answer)
        self._whole = kept

    async def _require_whole(self, answer: ClientResponse, kept: IO[bytes], size: int) -> None:
        """Raise ShardChangedError for the body of another file, RefusalError for one that may not be whole."""
        marked = http_headers.is_end_marked(answer)
        if self._first:
            cut = not marked and size < self.size
            self._compare(self.size if cut else size, http_headers.version(answer))
            if cut:
                raise bodies.other_length(f"{size:,}", self.size)
        elif not marked:
            found = size, await asyncio.to_thread(bodies.digest, kept)
            before, self._unconfirmed = self._unconfirmed, found
            if found != before:
                came = f"{before[0]:,} and {size:,}" if before else f"{size:,}"
                raise RefusalError(
                    f"answers without a length were not twice the same: {came} bytes came",
                    Verdict.PASSING,
                )

    def _from_whole(self, start: int, end: int) -> bytes:
        assert self._whole is not None
        self._whole.seek(start)
        return self._whole.read(end - start)

    def _compare(self, size: int, version: str | None) -> None:
        """Raise ShardChangedError for an answer about another file than the one that was opened."""
        if size != self.size or (self.version and version and version != self.version):
            now, then = _in_words(size, version), _in_words(self.size, self.version)
            raise ShardChangedError(
                f"{self._url}: changed while it was read: {now}, where {then} were when it was opened; run the same "
                "command again"
            )


async def _answer(
    session: ClientSession, url: Any, headers: Mapping[str, str], limits: ClientTimeout
) -> ClientResponse:
    """The answer to a GET, its body still to come."""
    try:
        return await session.get(url, headers=headers, timeout=limits)
    except ClientError:
        raise
    except ValueError as error:  # the client stumbled over a header
        raise RefusalError(f"no HTTP: {type(error).__name__}", Verdict.PASSING) from error


def _in_words(size: int, version: str | None) -> str:
    return f"{size:,} bytes with ETag {version}" if version else f"{size:,} bytes"


def _advances(start: int, stop: int, end: int) -> bool:
    """True for an answer up to `stop` that gives all up to `end`, or enough of it to ask on."""
    return stop == end or start + _LEAST_RANGE_BYTES <= stop < end


def _require(holds: bool, answer: ClientResponse) -> None:
    """Raise RefusalError, which may pass, for an answer that is not the one asked for."""
    if not holds:
        span = shortened(utf8_safe(answer.headers.get("Content-Range", "no Content-Range")))
        raise RefusalError(
            f"an answer to another request: {answer.status}, {span}", Verdict.PASSING
        )


def _refusal(answer: ClientResponse, url: str) -> OSError:
    verdict = of_status(answer.status)
    if verdict is Verdict.MISSING:
        return AbsentFileError(url, answer.status)
    reason = shortened(utf8_safe(answer.reason or ""))
    after_s = http_headers.retry_after_s(answer)
    return RefusalError(f"{answer.status} {reason}", verdict, retry_after_s=after_s)
