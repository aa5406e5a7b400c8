"""S3 through s3fs, with one retry policy at the one place that every request passes.

s3fs retries a part of what passes, without jitter, and twice over where it reads a body; botocore retries below
that, but no bodies. So both are told to try once, and a request counts as done when its whole body is here: a
range of a tar is handed on complete, or asked for again from its first byte, so that no byte is lost or doubled.
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
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES
from dfn_ray.storage.remote import ClientSource, RemoteFile
from dfn_ray.storage.s3_faults import (
    CONDITION_CODES,
    FAILURES,
    attempts_for,
    code_of,
    explained,
)
from dfn_ray.storage.store import plain_etag
from dfn_ray.uris import normalised

CONNECTIONS = 64
"""Of one process, as many as footers are read side by side. botocore's default is 10."""


UNANNOUNCED_LIMIT_BYTES = 2**30
"""Of an object asked for whole whose length is not announced, which S3 always does; it is held in memory."""
_PIECE_BYTES = 2**20


class S3(S3FileSystem):
    """S3 as the environment describes it: `AWS_*` as AWS's tools read them, `FSSPEC_S3_*` for settings of s3fs."""

    default_block_size = READ_AHEAD_BYTES
    retries = 1
    _served: ClassVar[set[tuple[str, str]]] = set()
    """Bucket and kind of the requests that this process has seen served: a refusal there may pass."""

    def __reduce__(self) -> Any:
        # Whoever it is sent to has its own environment; credentials do not travel.
        return (s3, ())

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(normalised(path) if isinstance(path, str) else path)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The file at a path; for reading, one that raises no errors of S3's."""
        if mode != "rb":
            return super().open(path, mode, **options)
        # The client's reads ask for the ETag that was there when it was opened.
        file = super().open(path, mode, **options | {"cache_type": "none"})
        source = ClientSource(file, retries_itself=True)
        return RemoteFile(self, str(self.unstrip_protocol(path)), source, **options)

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        own = {"retries": {"total_max_attempts": 1}, "max_pool_connections": CONNECTIONS}
        # What FSSPEC_S3_CONFIG_KWARGS says goes first.
        return own | super()._prepare_config_kwargs()

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        """S3's answer to a request; `Body` of a get_object is read already. Raises FileNotFoundError and S3Refusal."""
        bucket = str(kwargs.get("Bucket", ""))
        attempt = 0
        # Not the ETag that S3 documents for the parts: servers of other makers give another.
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
            answer = await AsyncRetrying(**retries.settings(attempts))(once)
        except FAILURES as failure:
            error: Exception = failure
            if method == "get_object" and code_of(error) in CONDITION_CODES:
                _require_version(kwargs, None)
            if attempt > 1 and await self._was_done(error, method, kwargs, before):
                return {}
            if method.startswith("head_") and code_of(error) in ("400", "403"):
                error = await self._reason(bucket) or error
            endpoint = self._s3.meta.endpoint_url if self._s3 is not None else self.endpoint_url
            final = explained(
                error, method=method, bucket=bucket, endpoint=endpoint, attempts=attempt
            )
            if isinstance(final, FileNotFoundError):  # an answer as good as any
                self._served.add((bucket, method))
            raise final from failure
        self._served.add((bucket, method))
        return answer

    call_s3 = sync_wrapper(_call_s3)

    async def _was_done(
        self, error: Exception, method: str, kwargs: dict[str, Any], before: Any
    ) -> bool:
        """True when an earlier attempt ended an upload and only its answer was lost: S3 then knows no such upload."""
        if code_of(error) != "NoSuchUpload":
            return False
        if method == "complete_multipart_upload":
            return await self._version(kwargs) not in (None, before)
        return method == "abort_multipart_upload"

    async def _reason(self, bucket: str) -> Exception | None:
        """What S3 has against this process, from a request whose refusal gives a reason: that of a HEAD does not."""
        try:
            await super()._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        except (OSError, BotoCoreError) as error:
            return error
        return None

    async def _version(self, kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """What tells one content of an object from another; None when there is no object."""
        try:
            there = await self._call_s3("head_object", Bucket=kwargs["Bucket"], Key=kwargs["Key"])
        except FileNotFoundError:
            return None
        return there["ETag"], there["LastModified"]


def _require_version(kwargs: dict[str, Any], there: str | None) -> None:
    """Raise ShardChangedError unless the object is the one that was opened; not all servers heed IfMatch."""
    opened = kwargs.get("IfMatch")
    if opened is not None and (there is None or plain_etag(there) != plain_etag(opened)):
        raise ShardChangedError(
            f"s3://{kwargs['Bucket']}/{kwargs['Key']}: changed while it was read: its ETag is {there or 'another one'}, "
            f"where {opened} was when it was opened; run the same command again"
        )


class _Body:
    """A body that is here, with the face of one that is still to be read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        return self._data

    def close(self) -> None:
        return


async def _whole(answer: dict[str, Any], span: str | None) -> bytes:
    """The whole body of an answer. Raises IncompleteReadError when it is not what was asked for, byte by byte.

    A server that sends more is not listened to any longer than to the first byte that is too many.
    """
    bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", span or "")
    asked = int(bounds[2]) - int(bounds[1]) + 1 if bounds else answer.get("ContentLength")
    limit = UNANNOUNCED_LIMIT_BYTES if asked is None else asked
    body, data = answer["Body"], bytearray()
    try:
        while len(data) <= limit and (piece := await body.read(_PIECE_BYTES)):
            data += piece
    finally:
        body.close()
    if len(data) > limit or asked not in (None, len(data)):
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=limit)
    return bytes(data)


def s3() -> S3:
    """S3 as the environment of this process describes it: one client and one set of connections for all its threads."""
    return _s3_of(os.getpid())


@cache
def _s3_of(pid: int) -> S3:
    # A child of a fork must not share connections. Listings are not remembered: others write here as well.
    return S3(use_listings_cache=False)
