"""From a shard to its chunks as Arrow tables, and to single rows of it: the one boundary that exceptions meet.

Beyond it there are only these: damage of content, as a reason of a sample or a fault of its shard; StorageError, when the
store fails; ShardChangedError, when the shard is not the listed one; InputError, when a caller asks for rows that are not
there; and what says nothing about the shard: MemoryError, a full disk, a package that is not installed. Anything else that
a reader raises is the content's doing if reading the same bytes in a fresh process raises it again at the same row. Then
the shard ends there with the fault `crashes_reader`. If not, it is a StorageError, and reading may be tried again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.errors import DfnRayError, InputError, StorageError
from dfn_ray.pool.chunking import OpenChunk, RowSelection
from dfn_ray.pool.examination import outcome_of, read_in_fresh_process
from dfn_ray.pool.open_chunks import chunks_from, detect_format, open_chunks
from dfn_ray.pool.opened import changed_shard
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.pool.sniff import Format
from dfn_ray.schema import Chunk, ShardFault

READER_VERSION = 5
"""Part of every fingerprint. Raise it by one with each change after which a file gives other samples, in other chunks, under
other uids, or fails them by other reasons; not for what only changes speed, messages or which errors are retried."""


def iter_chunks(
    shard: Shard, pool: Pool, *, skip: Collection[int] = (), last: int | None = None
) -> Iterator[tuple[Chunk, pa.Table]]:
    """The chunks of a shard, in order, each with its samples: columns of `SAMPLE_SCHEMA` (or
    `SEVERAL_CAPTIONS_SCHEMA`, as the pool's setting has it), `Chunk.rows` rows.

    Chunk boundaries are a function of the shard's content, `pool.chunk_rows` and `pool.chunk_bytes`.
    Chunks whose first row is in `skip` are passed without being yielded; of a tar only their headers are read. Where the
    one that ends the shard is among them, `last` is its first row, and nothing behind it is read. Otherwise the last
    chunk is yielded: it says so and carries what is wrong with the shard, without rows if it has none.

    Raises StorageError when the store fails, ShardChangedError when the shard is not the one that was listed or does not
    hold a chunk of `skip`.
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

    Images of other samples are not read from a tar, nor row groups without selection rows from Parquet.
    Raises InputError when the shard does not hold all of them (any more), and what `iter_chunks` raises.
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
        f"{len(missing)} of the rows asked for are not there, the first is {min(missing)}{fault}",
    )


def read_chunk(shard: Shard, pool: Pool, chunk: Chunk) -> pa.Table:
    """The samples of a chunk that `iter_chunks` once gave: columns of `SAMPLE_SCHEMA`, `Chunk.rows` rows.

    Only its own bytes are read where it has an entry point (tars) and its own row groups in Parquet; else the headers
    before it as well. Raises InputError when the shard no longer holds it, and what `iter_chunks` raises.
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
    except Exception as error:  # noqa: BLE001  raised again, or judged where the rows are read
        _require_content(error, shard)
        return pa.concat_tables(read_rows(shard, pool, rows))
    raise _changed_since_read(shard, f"{found} samples where {chunk.rows} were")


def shard_format(shard: Shard, pool: Pool) -> Format:
    """The format of a shard. Raises ShardDamageError when it has none or is not there, and what `iter_chunks` raises."""
    try:
        return detect_format(shard, pool)
    except ShardDamageError:
        raise
    except Exception as error:
        raise _damage(error, shard, pool, RowSelection(), 0) from error


def _damage(
    error: Exception, shard: Shard, pool: Pool, selection: RowSelection, row: int
) -> ShardDamageError:
    """The damage that an exception of a reader stands for. Raises whatever is not the content's doing."""
    _require_content(error, shard)
    here, again = outcome_of(error, row), read_in_fresh_process(shard, pool, selection)
    what = f"{here.error}: {here.message}"
    if (again.row, again.error) == (here.row, here.error):
        return ShardDamageError(ShardFault.CRASHES_READER, what)
    raise StorageError(
        f"{shard.uri}: reading it failed at row {row:,} by {what}, and not so when it was read again in a fresh process "
        f"({_reread_result(again.error, again.signal)}); run again"
    ) from error


def _require_content(error: Exception, shard: Shard) -> None:
    """Raise an error again that says nothing about a shard's content."""
    if isinstance(error, DfnRayError | MemoryError | ImportError):
        raise error
    if (
        isinstance(error, OSError) and error.errno is not None
    ):  # pyarrow's for broken files have none
        raise StorageError(f"{shard.uri}: cannot read it: {error}") from error


def _require_passed(shard: Shard, absent: Collection[int], *, ends_too_soon: bool) -> None:
    """Raise ShardChangedError where a shard ends in front of chunks that were read of it before, or within them."""
    if absent:
        raise changed_shard(
            shard, f"no chunk begins at row {min(absent):,} any more, where one did"
        )
    if ends_too_soon:
        raise changed_shard(shard, "it ends with a chunk behind which it went on before")


def _reread_result(error: str, signal: int) -> str:
    return f"signal {signal} ended it" if signal else error or "nothing was raised"


def _changed_since_read(shard: Shard, how: str) -> InputError:
    return InputError(f"{shard.uri}: {how}; the shard changed since it was read first")
