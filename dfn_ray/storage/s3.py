"""S3 through s3fs, with one retry policy at the single function that all requests pass through.

s3fs retries some transient faults, without jitter, and twice over when it reads a body; botocore
retries below that, but not bodies. So both are limited to one attempt, and a request is done when
its whole body has arrived: a range of a tar is returned complete, or requested again from its first
byte, so that no byte is lost or duplicated.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, IncompleteReadError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from tenacity import AsyncRetrying

from dfn_ray.errors import ShardChangedError
from dfn_ray.storage import retries
from dfn_ray.storage.causes import RefusalError
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES
from dfn_ray.storage.remote import ClientSource, RemoteFile
from dfn_ray.storage.s3_faults import (
    CONDITION_CODES,
    FAILURES,
    RANGE_CODES,
    attempts_for,
    code_of,
    final_error,
)
from dfn_ray.storage.store import plain_etag, version_in
from dfn_ray.uris import normalised

CONNECTIONS = 64
"""Connections per process: the number of footers read concurrently. botocore's default is 10."""
UNANNOUNCED_LIMIT_BYTES = 2**30
"""Limit on an object of unannounced length, which is held in memory; S3 itself always announces
it."""
_PIECE_BYTES = 2**20
_PLACED = re.compile(r"bytes (\d+)-\d+/(\d+)")
"""The place of a range in its object, as in `ContentRange`."""


class S3(S3FileSystem):
    """S3, configured by the environment: `AWS_*` as for AWS's tools, `FSSPEC_S3_*` for s3fs."""

    default_block_size = READ_AHEAD_BYTES
    retries = 1
    _served: ClassVar[set[tuple[str, str]]] = set()
    """Bucket and method of requests that succeeded in this process: a 403 there may be
    transient."""

    def __reduce__(self) -> Any:
        # The receiving process uses its own environment; credentials are never sent.
        return (s3, ())

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(normalised(path) if isinstance(path, str) else path)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Opens the file at a path; for reading, one that raises StorageError, not S3's errors."""
        if mode != "rb":
            return super().open(path, mode, **options)
        # The client's reads are conditional on the ETag at opening.
        file = super().open(path, mode, **options | {"cache_type": "none"})
        source = ClientSource(file, retries_itself=True)
        return RemoteFile(self, str(self.unstrip_protocol(path)), source, **options)

    def open_with_end(self, path: str, head_bytes: int, tail_bytes: int) -> RemoteFile:
        """Opens an object for reading by a request for one end of it, which also gives its size.

        That is its first `head_bytes` or, if that is 0, its last `tail_bytes`. Reads of them take
        no further request; others are conditional on the same ETag.
        """
        span = f"0-{head_bytes - 1}" if head_bytes else f"-{tail_bytes}"
        try:
            source = _PartlyRead(self, path, f"bytes={span}")
        except RefusalError as error:
            if code_of(error.__cause__ or error) not in RANGE_CODES:
                raise
            return self.open(path, cache_type="none")  # empty, or on some servers a short object
        return RemoteFile(self, str(self.unstrip_protocol(path)), source, cache_type="none")

    def require_object(self, path: str) -> None:
        """Raises FileNotFoundError if there is no object at a path.

        By one GET of a byte: the answer to a HEAD does not say whether the object or the bucket is
        absent, so the client's `info` needs a LIST as well.
        """
        bucket, key, _ = self.split_path(path)
        try:
            self.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
        except RefusalError as error:
            if code_of(error.__cause__ or error) not in RANGE_CODES:  # those of an empty object
                raise

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        own = {"retries": {"total_max_attempts": 1}, "max_pool_connections": CONNECTIONS}
        # FSSPEC_S3_CONFIG_KWARGS takes precedence.
        return own | super()._prepare_config_kwargs()

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        """S3's response to a request; `Body` of a get_object has been read.

        Raises FileNotFoundError and RefusalError.
        """
        bucket = str(kwargs.get("Bucket", ""))
        attempt = 0
        # The ETag that S3 documents for the parts is not used: other servers return another one.
        completes = method == "complete_multipart_upload"
        before = await self._version(kwargs) if completes else None

        async def once() -> Any:
            nonlocal attempt
            attempt += 1
            async with retries.attempt_limit():
                answer = await super(S3, self)._call_s3(method, *akwarglist, **kwargs)
                if method == "get_object":
                    _require_version(kwargs, answer.get("ETag"))
                    answer["Body"] = _Body(await _whole(answer, kwargs.get("Range")))
                return answer

        def attempts(error: BaseException) -> int:
            return attempts_for(error, served_before=(bucket, method) in self._served)

        try:
            answer = await AsyncRetrying(**retries.tenacity_arguments(attempts))(once)
        except FAILURES as failure:
            error: Exception = failure
            if method == "get_object" and code_of(error) in CONDITION_CODES:
                _require_version(kwargs, None)
            if attempt > 1 and await self._was_done(error, method, kwargs, before):
                return {}
            if method.startswith("head_") and code_of(error) in ("400", "403"):
                error = await self._reason(bucket) or error
            endpoint = self._s3.meta.endpoint_url if self._s3 is not None else self.endpoint_url
            final = final_error(
                error, method=method, bucket=bucket, endpoint=endpoint, attempts=attempt
            )
            if isinstance(final, FileNotFoundError):  # a valid response
                self._served.add((bucket, method))
            raise final from failure
        self._served.add((bucket, method))
        return answer

    call_s3 = sync_wrapper(_call_s3)

    async def _was_done(
        self, error: Exception, method: str, kwargs: dict[str, Any], before: Any
    ) -> bool:
        """True if an earlier attempt ended an upload and only its response was lost.

        S3 then answers NoSuchUpload.
        """
        if code_of(error) != "NoSuchUpload":
            return False
        if method == "complete_multipart_upload":
            return await self._version(kwargs) not in (None, before)
        return method == "abort_multipart_upload"

    async def _reason(self, bucket: str) -> Exception | None:
        """The error of a list request, which contains a reason; that of a HEAD does not."""
        try:
            await super()._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        except (OSError, BotoCoreError) as error:
            return error
        return None

    async def _version(self, kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """Identifies the content of an object; None if the object does not exist."""
        try:
            head = await self._call_s3("head_object", Bucket=kwargs["Bucket"], Key=kwargs["Key"])
        except FileNotFoundError:
            return None
        return head["ETag"], head["LastModified"]


class _PartlyRead:
    """An object of which a range was read when it was opened."""

    def __init__(self, fs: S3, path: str, span: str) -> None:
        bucket, key, _ = fs.split_path(path)
        self._fs, self._request = fs, {"Bucket": bucket, "Key": key}
        answer = self._get(Range=span)
        self._data: bytes = answer["Body"].data
        # A server that ignores the range sends the whole object.
        placed = _PLACED.fullmatch(answer.get("ContentRange") or "")
        self._start, self.size = map(int, placed.groups()) if placed else (0, len(self._data))
        self.version = version_in(answer)

    def fetch(self, start: int, end: int) -> bytes:
        """All bytes from `start` to `end`, of the version that was opened."""
        first = min(max(start, self._start), end)
        last = max(min(end, self._start + len(self._data)), first)
        known = self._data[first - self._start : last - self._start]
        return self._missing(start, first) + known + self._missing(last, end)

    def _missing(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, by another request."""
        if start >= end:
            return b""
        condition = {"IfMatch": f'"{self.version}"'} if self.version else {}
        return self._get(Range=f"bytes={start}-{end - 1}", **condition)["Body"].data

    def close(self) -> None:
        """Releases nothing: the client is shared."""

    def _get(self, **request: str) -> Any:
        return self._fs.call_s3("get_object", **self._request, **request)


def _require_version(kwargs: dict[str, Any], etag: str | None) -> None:
    """Raises ShardChangedError unless the object is the one opened; some servers ignore IfMatch."""
    opened = kwargs.get("IfMatch")
    if opened is not None and (etag is None or plain_etag(etag) != plain_etag(opened)):
        raise ShardChangedError(
            f"s3://{kwargs['Bucket']}/{kwargs['Key']}: changed while it was read: its ETag was "
            f"{opened} when it was opened and is now {etag or 'another one'}; run the same command "
            "again"
        )


class _Body:
    """A body in memory, with the interface of one that is still to be read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self) -> bytes:
        return self.data

    def close(self) -> None:
        return


async def _whole(answer: dict[str, Any], span: str | None) -> bytes:
    """The whole body of a response.

    Raises IncompleteReadError if it has another size than requested; a range ends at the end of the
    object. Reading stops at the first excess byte.
    """
    expected = answer.get("ContentLength")
    if bounds := re.fullmatch(r"bytes=(\d+)-(\d+)", span or ""):
        start, end = int(bounds[1]), int(bounds[2]) + 1
        placed = _PLACED.fullmatch(answer.get("ContentRange") or "")
        expected = (min(end, int(placed[2])) if placed else end) - start
    limit = UNANNOUNCED_LIMIT_BYTES if expected is None else expected
    body, data = answer["Body"], bytearray()
    try:
        while len(data) <= limit and (piece := await body.read(_PIECE_BYTES)):
            data += piece
    finally:
        body.close()
    if len(data) > limit or expected not in (None, len(data)):
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=limit)
    return bytes(data)


def s3() -> S3:
    """S3, configured by this process's environment; all threads share one client."""
    return _s3_of(os.getpid())


@cache
def _s3_of(pid: int) -> S3:
    # Keyed by pid, as a forked child must not share connections. Listings are not cached: others
    # write too.
    return S3(use_listings_cache=False)
