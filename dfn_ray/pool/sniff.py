"""Detection of a shard's format by its first bytes."""

from __future__ import annotations

from enum import Enum
from typing import IO, Literal

from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.tape import GzipTape
from dfn_ray.pool.tars.tar import BLOCK_BYTES, is_tar_header
from dfn_ray.schema import ShardFault

_GZIP = b"\x1f\x8b"
_PARQUET = (b"PAR1", b"PARE")
"""The second one if the footer is encrypted."""


class Format(Enum):
    """A format of shards; the value is for people."""

    TAR = "tar"
    TAR_GZIP = "tar.gz"
    PARQUET = "parquet"
    FOLDER = "folder"


def sniff(
    file: IO[bytes], forced: Literal["auto", "webdataset", "parquet", "folder"] = "auto"
) -> Format:
    """The format of an open file, which is left at its first byte.

    Raises ShardDamageError for an empty file, for gzip that is damaged or ends before its content
    can be recognised, and for a file that is neither a tar (also in gzip) nor Parquet, unless
    `forced` sets the format.
    """
    head = file.read(BLOCK_BYTES)
    file.seek(0)
    if not head:
        raise ShardDamageError(ShardFault.EMPTY, "0 bytes")
    if forced == "parquet":
        return Format.PARQUET
    if head.startswith(_GZIP):
        if forced != "webdataset":
            _require_tar_within(file)
        return Format.TAR_GZIP
    if forced == "webdataset" or is_tar_header(head):
        return Format.TAR
    if head.startswith(_PARQUET):
        return Format.PARQUET
    raise ShardDamageError(
        ShardFault.UNREADABLE, f"neither tar nor Parquet; begins with {head[:24]!r}"
    )


def _require_tar_within(file: IO[bytes]) -> None:
    """Raises ShardDamageError unless a gzip file contains a tar.

    Reports the damage of the gzip instead if it hides the content.
    """
    tape = GzipTape(file)
    try:
        head = tape.read(BLOCK_BYTES)
    finally:
        file.seek(0)
    if is_tar_header(head):
        return
    hidden = len(head) < BLOCK_BYTES and tape.broken
    raise ShardDamageError(
        ShardFault.UNREADABLE, hidden[1] if hidden else "gzip that contains no tar"
    )
