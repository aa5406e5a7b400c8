"""What a shard is, by its first bytes."""

from __future__ import annotations

from enum import Enum
from typing import IO, Literal

from dfn_ray.pool.shard import ShardDamage
from dfn_ray.pool.tape import GzipTape
from dfn_ray.pool.tar import BLOCK_BYTES, is_tar_header
from dfn_ray.schema import ShardFault

_GZIP = b"\x1f\x8b"
_PARQUET = (b"PAR1", b"PARE")
"""The second one where the footer is encrypted."""


class Format(Enum):
    """A kind of shard; the value is for people."""

    TAR = "tar"
    TAR_GZIP = "tar.gz"
    PARQUET = "parquet"
    FOLDER = "folder"


def sniff(
    file: IO[bytes], forced: Literal["auto", "webdataset", "parquet", "folder"] = "auto"
) -> Format:
    """The format of an open file, which is left at its first byte.

    Raises ShardDamage for a file without a byte, and for one that is neither a tar (also in gzip) nor
    Parquet, unless `forced` says what it is.
    """
    head = file.read(BLOCK_BYTES)
    file.seek(0)
    if not head:
        raise ShardDamage(ShardFault.EMPTY, "0 bytes")
    if forced == "parquet":
        return Format.PARQUET
    if head.startswith(_GZIP):
        if forced == "webdataset" or is_tar_header(_decompressed_head(file)):
            return Format.TAR_GZIP
        raise ShardDamage(ShardFault.UNREADABLE, "gzip, but no tar in it")
    if forced == "webdataset" or is_tar_header(head):
        return Format.TAR
    if head.startswith(_PARQUET):
        return Format.PARQUET
    raise ShardDamage(ShardFault.UNREADABLE, f"neither tar nor Parquet; begins with {head[:24]!r}")


def _decompressed_head(file: IO[bytes]) -> bytes:
    """The first tar block inside a gzip file, or what there is of it."""
    try:
        return GzipTape(file).read(BLOCK_BYTES)
    finally:
        file.seek(0)
