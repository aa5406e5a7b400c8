"""Chunks of a shard as Arrow tables, and single rows of it: the boundary for reader exceptions.

Only these pass it: damage of content, as the reason of a sample or the fault of its shard;
StorageError, if the store fails; ShardChangedError, if the shard differs from its listing;
InputError, if a caller requests rows that do not exist; and exceptions that do not depend on the
shard: MemoryError, a full disk, a package that is not installed. Any other exception of a reader is
attributed to the content if reading the same bytes in a fresh process raises it again at the same
row. Then the shard ends there with the fault `crashes_reader`. Otherwise it becomes a StorageError,
and the read may be retried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.errors import DfnRayError, ShardChangedError, StorageError
from dfn_ray.pool.chunking import OpenChunk, RowSelection
from dfn_ray.pool.examination import outcome_of, read_in_fresh_process
from dfn_ray.pool.open_chunks import chunks_from, detect_format, open_chunks
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.pool.shard_file import changed_shard
from dfn_ray.pool.sniff import Format
from dfn_ray.schema import Chunk, ShardFault

READER_VERSION = 5
"""Part of every fingerprint. Increment it with each change after which a file yields other samples,
other chunks, other uids, or other reasons of failure; not for changes of speed, messages or which
errors are retried."""


def iter_chunks(
    shard: Shard, pool: Pool, *, skip: Collection[int] = (), last: int | None = None
) -> Iterator[tuple[Chunk, pa.Table]]:
    """The chunks of a shard, in order, each with a table of its samples.

    Tables have the columns of `SAMPLE_SCHEMA` (or `SEVERAL_CAPTIONS_SCHEMA`, by the pool's setting)
    and `Chunk.rows` rows. Chunk boundaries depend on the shard's content, `pool.chunk_rows` and
    `pool.chunk_bytes`.

    Chunks whose first row is in `skip` are not yielded; of a tar only their headers are read. If
    the chunk that ends the shard is among them, `last` is its first row, and nothing behind it is
    read. Otherwise the last chunk is yielded: it is marked as the last and carries the fault of the
    shard, without rows if it has none.

    Raises StorageError if the store fails, ShardChangedError if the shard differs from its listing
    or does not contain a chunk of `skip`.
    """
    selection = RowSelection(skip=frozenset(skip))
    row = passed_bytes = 0
    to_pass = set(skip)
    try:
        for chunk in open_chunks(shard, pool, selection):
            after, is_passed = chunk.next_row, chunk.first_row in to_pass
            to_pass.discard(chunk.first_row)
            if chunk.last or chunk.first_row == last:
                _require_passed(shard, to_pass, ends_too_soon=is_passed and chunk.first_row != last)
            if not is_passed:
                yield chunk.finish(shard, pool, selection)
            if chunk.first_row == last:
                return
            row, passed_bytes = after, passed_bytes + chunk.bytes_read
    except Exception as error:  # noqa: BLE001  recorded as the shard's fault, or raised again
        damage = _damage(error, shard, pool, selection, row)
        end = OpenChunk(row, bytes_read=max(0, shard.size_bytes - passed_bytes))
        end.end(damage)
        _require_passed(shard, to_pass, ends_too_soon=row in selection.skip)
        yield end.finish(shard, pool, selection)


def read_rows(shard: Shard, pool: Pool, rows: Collection[int]) -> Iterator[pa.Table]:
    """The samples at `rows` (ordinals in the shard), in order, as tables with `SAMPLE_SCHEMA`.

    Images of other samples are not read from a tar, nor row groups without selected rows from
    Parquet. Raises InputError if the shard does not (or no longer) contain all of them, and the
    exceptions of `iter_chunks`.
    """
    missing = set(rows)
    if not missing:
        return
    selection = RowSelection(rows=frozenset(missing))
    fault, row = "", 0
    try:
        for chunk in open_chunks(shard, pool, selection):
            after = chunk.next_row
            if chunk.fault is not None:
                fault = f" ({chunk.fault}: {chunk.detail})"
            table = chunk.take_table(shard, pool, selection)
            if table.num_rows:
                missing.difference_update(table.column("row").to_pylist())
                yield table
            if not missing:
                return
            row = after
    except Exception as error:  # noqa: BLE001  recorded as the shard's fault, or raised again
        damage = _damage(error, shard, pool, selection, row)
        fault = f" ({damage.fault}: {damage.detail})"
    raise _changed_since_read(
        shard,
        f"{len(missing)} of the requested rows do not exist, the first is {min(missing)}{fault}",
    )


def read_chunk(shard: Shard, pool: Pool, chunk: Chunk) -> pa.Table:
    """The samples of a chunk from `iter_chunks`: columns of `SAMPLE_SCHEMA`, `Chunk.rows` rows.

    Reads only its own bytes if it has an entry point (tars), and only its own row groups in
    Parquet; otherwise the headers before it too. Raises ShardChangedError if the shard no longer
    contains it, and the exceptions of `iter_chunks`.
    """
    rows = range(chunk.first_row, chunk.first_row + chunk.rows)
    if chunk.at is None:
        return pa.concat_tables(read_rows(shard, pool, rows))
    try:
        reread = next(chunks_from(shard, pool, chunk.first_row, chunk.at))
        found = len(reread.drafts)
        if found == chunk.rows:
            return reread.take_table(shard, pool, RowSelection())
    except ShardDamageError as damage:
        raise _changed_since_read(shard, f"{damage.fault}: {damage.detail}") from damage
    except Exception as error:  # noqa: BLE001  raised again, or handled where the rows are read
        _require_content(error, shard)
        return pa.concat_tables(read_rows(shard, pool, rows))
    raise _changed_since_read(shard, f"{found} samples instead of {chunk.rows}")


def shard_format(shard: Shard, pool: Pool) -> Format:
    """The format of a shard.

    Raises ShardDamageError if it has none or is missing, and the exceptions of `iter_chunks`.
    """
    try:
        return detect_format(shard, pool)
    except ShardDamageError:
        raise
    except Exception as error:
        raise _damage(error, shard, pool, RowSelection(), 0) from error


def _damage(
    error: Exception, shard: Shard, pool: Pool, selection: RowSelection, row: int
) -> ShardDamageError:
    """The damage that a reader's exception stands for; raises if the content is not the cause."""
    _require_content(error, shard)
    here, again = outcome_of(error, row), read_in_fresh_process(shard, pool, selection)
    what = f"{here.error}: {here.message}"
    if (again.row, again.error) == (here.row, here.error):
        return ShardDamageError(ShardFault.CRASHES_READER, what)
    raise StorageError(
        f"{shard.uri}: reading it failed at row {row:,} with {what}, but a second read in a fresh "
        f"process did not fail in the same way ({_reread_result(again.error, again.signal)}); run "
        "again"
    ) from error


def _require_content(error: Exception, shard: Shard) -> None:
    """Raises an error again if it does not come from the shard's content."""
    if isinstance(error, DfnRayError | MemoryError | ImportError):
        raise error
    if (
        isinstance(error, OSError) and error.errno is not None
    ):  # pyarrow's errors for broken files have none
        raise StorageError(f"{shard.uri}: cannot read it: {error}") from error


def _require_passed(shard: Shard, absent: Collection[int], *, ends_too_soon: bool) -> None:
    """Raises ShardChangedError if a shard ends before or within chunks that were read before."""
    if absent:
        raise changed_shard(
            shard,
            f"no chunk begins at row {min(absent):,}, where one began when the shard was first "
            "read",
        )
    if ends_too_soon:
        raise changed_shard(shard, "it now ends with a chunk that was not the last one")


def _reread_result(error: str, signal: int) -> str:
    return f"signal {signal} ended it" if signal else error or "no exception"


def _changed_since_read(shard: Shard, how: str) -> ShardChangedError:
    return ShardChangedError(
        f"{shard.uri}: {how}; it has changed since it was first read. Restore it, or use it as it "
        "is now in a new run_uri"
    )
