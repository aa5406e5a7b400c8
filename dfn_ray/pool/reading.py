"""From a shard to its chunks as Arrow tables, and to single rows of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.errors import InputError, MissingFileError, StorageError
from dfn_ray.pool.chunking import Group, Wanted, closing
from dfn_ray.pool.folder import folder_groups
from dfn_ray.pool.parquet import parquet_groups
from dfn_ray.pool.shard import Shard, ShardDamage
from dfn_ray.pool.sniff import Format, sniff
from dfn_ray.pool.tape import GzipTape, Tape
from dfn_ray.pool.webdataset import tar_groups
from dfn_ray.schema import Chunk, ShardFault
from dfn_ray.storage import open_uri

_LISTED_FAULTS = {
    ShardFault.MISSING: "not in the listing of its folder",
    ShardFault.UNFINISHED: "no _stats.json beside it, which img2dataset writes last",
}


def iter_chunks(
    shard: Shard, pool: Pool, *, skip: Collection[int] = ()
) -> Iterator[tuple[Chunk, pa.Table]]:
    """The chunks of a shard, in order, each with its samples: columns of `SAMPLE_SCHEMA`, `Chunk.rows` rows.

    Chunk boundaries are a function of the shard's content, `pool.chunk_rows` and `pool.chunk_bytes`.
    Chunks whose first row is in `skip` are passed without being yielded; of a tar only their headers are read. The
    last chunk of a shard says so and carries what is wrong with the shard, without rows if it has none.

    Raises StorageError when the store, not the shard, fails.
    """
    wanted = Wanted(skip=frozenset(skip))
    for group in _groups(shard, pool, wanted):
        if group.first_row not in wanted.skip:
            yield group.chunk(shard), group.take_table(shard, pool, wanted)


def read_rows(shard: Shard, pool: Pool, rows: Collection[int]) -> Iterator[pa.Table]:
    """The samples at `rows` (ordinals in the shard), in order, as tables with `SAMPLE_SCHEMA`.

    Images of other samples are not read from a tar, nor row groups without wanted rows from Parquet.
    Raises InputError when the shard does not hold all of them (any more), StorageError when the store fails.
    """
    missing = set(rows)
    if not missing:
        return
    wanted = Wanted(rows=frozenset(missing))
    fault: str = ""
    for group in _groups(shard, pool, wanted):
        if group.fault is not None:
            fault = f" ({group.fault}: {group.detail})"
        table = group.take_table(shard, pool, wanted)
        if table.num_rows:
            missing.difference_update(table.column("row").to_pylist())
            yield table
        if not missing:
            return
    raise _changed(
        shard,
        f"{len(missing)} of the rows asked for are not there, the first is {min(missing)}{fault}",
    )


def read_chunk(shard: Shard, pool: Pool, chunk: Chunk) -> pa.Table:
    """The samples of a chunk that `iter_chunks` once gave: columns of `SAMPLE_SCHEMA`, `Chunk.rows` rows.

    Only its own bytes are read where it has an entry point (tars) and its own row groups in Parquet; else the headers
    before it as well. Raises InputError when the shard no longer holds it, StorageError when the store fails.
    """
    wanted = range(chunk.first_row, chunk.first_row + chunk.rows)
    if chunk.at is None:
        return pa.concat_tables(read_rows(shard, pool, wanted))
    with _opened(shard, in_order=True) as file:
        groups = tar_groups(Tape(file), pool, Wanted(), first_row=chunk.first_row, at=chunk.at)
        try:
            group = next(groups)
        except ShardDamage as damage:
            raise _changed(shard, f"{damage.fault}: {damage.detail}") from damage
        if len(group.drafts) != chunk.rows:
            raise _changed(shard, f"{len(group.drafts)} samples where {chunk.rows} were")
        return group.take_table(shard, pool, Wanted())


def sniffed(shard: Shard, pool: Pool) -> Format:
    """The format of a shard. Raises ShardDamage when it has none or is not there."""
    if pool.format == "folder":
        return Format.FOLDER
    with _opened(shard, in_order=False) as file:
        return sniff(file, pool.format)


def _changed(shard: Shard, how: str) -> InputError:
    return InputError(f"{shard.uri}: {how}; the shard changed since it was read first")


def _groups(shard: Shard, pool: Pool, wanted: Wanted) -> Iterator[Group]:
    """The chunks of a shard of whatever format; `bytes_read` of all adds up to its size."""
    if pool.format == "folder":
        yield from folder_groups(shard, pool, wanted)
        return
    given = 0
    try:
        with _opened(shard, in_order=not _looks_like_parquet(shard, pool)) as file:
            size = file.seek(0, 2)
            file.seek(0)
            for group in _groups_of_file(file, replace(shard, size_bytes=size), pool, wanted):
                if group.last:
                    group.bytes_read = size - given
                    if group.fault is None and not group.drafts:
                        group.fault, group.detail = ShardFault.EMPTY, "no sample in it"
                given += group.bytes_read
                yield group
    except ShardDamage as damage:
        yield closing(damage)


def _groups_of_file(file: IO[bytes], shard: Shard, pool: Pool, wanted: Wanted) -> Iterator[Group]:
    form = sniff(file, pool.format)
    if form is Format.TAR:
        yield from tar_groups(Tape(file), pool, wanted)
    elif form is Format.TAR_GZIP:
        yield from tar_groups(GzipTape(file), pool, wanted)
    elif _looks_like_parquet(shard, pool):
        yield from parquet_groups(file, shard, pool, wanted)
    else:
        with _opened(shard, in_order=False) as again:
            yield from parquet_groups(again, shard, pool, wanted)


def _looks_like_parquet(shard: Shard, pool: Pool) -> bool:
    """The first guess, which only decides how the file is opened: Parquet is read here and there, tars in order."""
    return pool.format == "parquet" or shard.name.endswith(".parquet")


@contextmanager
def _opened(shard: Shard, *, in_order: bool) -> Iterator[IO[bytes]]:
    """The file of a shard. Raises ShardDamage when it is not there, StorageError when it cannot be read."""
    if shard.fault is not None:
        raise ShardDamage(shard.fault, _LISTED_FAULTS.get(shard.fault, "by its listing"))
    try:
        file = open_uri(shard.opened_at, in_order=in_order)
    except MissingFileError as error:
        raise ShardDamage(ShardFault.MISSING, "gone since it was listed") from error
    with file:
        try:
            yield file
        except OSError as error:
            raise StorageError(f"{shard.uri}: cannot read it: {error}") from error
