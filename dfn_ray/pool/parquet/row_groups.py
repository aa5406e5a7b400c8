"""The samples of one row group, and the rest of them if one of its pages is broken or too large."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.pool.parquet.columns import Columns
from dfn_ray.pool.parquet.pages import (
    BATCH_BYTES,
    PAGE_BYTES,
    BatchTooLargeError,
    Leaf,
    Limits,
    PageTooLargeError,
)
from dfn_ray.pool.parquet.values import captions, image_bytes, keys, metadata_rows
from dfn_ray.pool.parquet.watched import BROKEN, WatchedFile, first_line
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.schema import Reason, ShardFault

_BATCH_ROWS = 256
_MEAN_BATCH_BYTES = 8 * 2**20
"""Target size of the batches in which rows are decoded, by the mean of their row group."""
_MAX_DROPPED = 16
"""Columns of metadata that are dropped one at a time for too large a page, each of which requires
another read of the row group; after that all are dropped."""
_MAX_ROWS_LOST = 2**20
"""Rows that a broken row group may state for each to fail by itself: writers stop at this number or
before (pyarrow and arrow-rs at exactly this many). With more the shard ends: a footer may state any
number."""


@dataclass(frozen=True, slots=True)
class OpenParquet:
    """A Parquet file that is being read."""

    parquet: pq.ParquetFile
    file: WatchedFile
    columns: Columns
    max_image_page: int
    """Bytes that a page of images may take however well it compresses."""
    max_caption_bytes: int
    """Longer captions fail without being held: in a dictionary, one of 60 MB may be that of every
    row."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of an open file."""

    opened: OpenParquet
    number: int
    rows: int
    leaves: Mapping[str, Sequence[Leaf]]
    """By the column that they are part of."""

    def drafts(self, first: int, rows: frozenset[int] | None) -> Iterator[Draft]:
        """Its samples, or only those at `rows`, in order; its first row has the ordinal `first`."""
        done = 0
        try:
            for at, batch in self._batches(self.opened.columns.names):
                done = at + batch.num_rows
                if done > self.rows:
                    break
                for start, part in _selected_stretches(batch, first + at, rows):
                    yield from self._drafts_of(part, start)
        except (*BROKEN, PageTooLargeError) as error:
            if isinstance(error, MemoryError):
                raise
            yield from self._failed(first, done, error, rows)
            return
        if done == self.rows:
            return
        if not done and (unread := next(filter(self._is_unread, self.opened.columns.names), None)):
            error = OSError(f"pyarrow returns no row of column {unread}")
            yield from self._failed(first, done, error, rows)
            return
        raise ShardDamageError(
            ShardFault.UNREADABLE,
            f"row group {self.number} contains at least {done:,} rows, the footer states "
            f"{self.rows:,}",
        )

    def _drafts_of(self, batch: pa.RecordBatch, first: int) -> Iterator[Draft]:
        columns, metadata = self.opened.columns, self.opened.columns.metadata
        labels = [column.label for column in metadata]
        found = _Found(batch)
        texts = captions([found.of(name) for name in columns.texts], self.opened.max_caption_bytes)
        names = keys(found.of(columns.key)) if columns.key else iter([None] * batch.num_rows)
        others = metadata_rows(
            [found.get(column.name, column.place) for column in metadata], batch.num_rows
        )
        images = image_bytes(found.of(columns.image))
        for row, (image, (caption_size, texts_of_row), key, (values, replaced)) in enumerate(
            zip(images, texts, names, others, strict=True), first
        ):
            yield Draft(
                row=row,
                key=self._key(row) if key is None else key,
                images=int(image is not None),
                image_size=None if image is None else len(image),
                image=image,
                caption_size=caption_size,
                captions=texts_of_row,
                metadata=dict(zip(labels, values, strict=True)) or None,
                replaced=replaced,
            )

    def _failed(
        self, first: int, done: int, error: Exception, rows: frozenset[int] | None
    ) -> Iterator[Draft]:
        """The rows from `done` on, all failed, with their own names and uids if readable."""
        if self.rows - done > _MAX_ROWS_LOST:
            what = (
                f"row group {self.number} is broken ({first_line(error)}) and states "
                f"{self.rows:,} rows"
            )
            raise ShardDamageError(ShardFault.UNREADABLE, what) from error
        too_large = error if isinstance(error, PageTooLargeError) else None
        names = self._names(done)
        for at in range(done, self.rows):
            key, uid = next(names, (None, None))
            row = first + at
            if rows is not None and row not in rows:
                continue
            key = self._key(row) if key is None else key
            draft = Draft(row=row, key=key, metadata={"uid": uid} if uid else None)
            if too_large is not None and (too_large.row == at or self.rows == 1):
                is_image = too_large.column == self.opened.columns.image
                draft.images, draft.image_size = 1, too_large.size_bytes if is_image else 1
                draft.caption_size = None if is_image else too_large.size_bytes
            else:
                draft.fault = Reason.BROKEN_ROW_GROUP
            yield draft

    def _key(self, row: int) -> str:
        """The name of a row without one: its ordinal, spelled so that no other row has it."""
        return f"#{row}" if self.opened.columns.key else str(row)

    def _names(self, done: int) -> Iterator[tuple[str | None, str | None]]:
        """Keys and own uids of the rows from `done` on, as far as they can be read."""
        key, uid = self.opened.columns.key, self.opened.columns.uid
        try:
            for _, batch in self._batches([name for name in (key, uid) if name], done):
                found = _Found(batch)
                nothing = [None] * batch.num_rows
                yield from zip(
                    keys(found.of(key)) if key else nothing,
                    keys(found.of(uid)) if uid else nothing,
                    strict=True,
                )
        except (*BROKEN, PageTooLargeError) as error:
            if isinstance(error, MemoryError):
                raise

    def _batches(self, names: Sequence[str], done: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of the rows from `done` on, of the named columns, each with its first ordinal.

        Restarts with smaller batches if needed, or without a column of metadata that is too large
        or that pyarrow skips.
        """
        columns = self.opened.columns
        droppable = {column.name for column in columns.metadata} - {columns.uid}
        size, dropped = self._first_batch_rows(), 0
        while names:
            at = 0
            try:
                for batch in self._pass(names, size):
                    end = at + batch.num_rows
                    if end > done:
                        yield max(at, done), batch.slice(max(done - at, 0))
                        done = end
                    at = end
                if at >= self.rows or not (unread := self._unread(droppable.intersection(names))):
                    return
                names = [name for name in names if name not in unread]
            except BatchTooLargeError as error:
                size = error.rows
            except PageTooLargeError as error:
                if error.column not in droppable:
                    raise
                dropped += 1
                too_large = {error.column} if dropped < _MAX_DROPPED else droppable
                names = [name for name in names if name not in too_large]
            except pa.ArrowInvalid:
                if not (unread := self._unread(droppable.intersection(names))):
                    raise
                names = [name for name in names if name not in unread]

    def _unread(self, names: Iterable[str]) -> AbstractSet[str]:
        return {name for name in names if self._is_unread(name)}

    def _is_unread(self, name: str) -> bool:
        """True for a valid column that pyarrow cannot assemble.

        pyarrow 26 returns no row and no error for some lists in tiny data pages, which it wrote
        itself, and ends all columns read with them; in a struct with other fields the same raises
        ArrowInvalid, which no broken page does.
        """
        try:
            return not any(batch.num_rows for batch in self._pass([name], _BATCH_ROWS))
        except pa.ArrowInvalid:
            return True

    def _first_batch_rows(self) -> int:
        """Rows per batch by the footer; the pages may require fewer."""
        group = self.opened.parquet.metadata.row_group(self.number)
        mean = max(1, group.total_byte_size // max(group.num_rows, 1))
        leaves = itertools.chain.from_iterable(self.leaves.values())
        longest = max(1, sum(leaf.dictionary_bytes for leaf in leaves))
        return max(1, min(_BATCH_ROWS, _MEAN_BATCH_BYTES // mean, BATCH_BYTES // longest))

    def _pass(self, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """One pass over the named columns. Raises the fault of a page, and StorageError."""
        opened = self.opened
        pages = dict.fromkeys(opened.columns.texts, PAGE_BYTES)
        pages[opened.columns.image] = opened.max_image_page
        leaves = [leaf for name in names for leaf in self.leaves.get(name, ())]
        opened.file.watch(leaves, Limits(batch_rows, len(leaves), pages))
        try:
            yield from opened.parquet.iter_batches(
                batch_size=batch_rows,
                row_groups=[self.number],
                columns=list(names),
                use_threads=False,
            )
        except Exception as error:
            if opened.file.error is not None:
                raise opened.file.damage(error, "") from error
            if opened.file.page_error is not None:
                raise opened.file.page_error from error
            raise


class _Found:
    """The columns of a batch by name, and by position among those of one name."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._places: dict[str, list[int]] = {}
        for place, name in enumerate(batch.schema.names):
            self._places.setdefault(name, []).append(place)

    def of(self, name: str) -> pa.Array:
        """The only column of a name."""
        return self._batch.column(self._places[name][0])

    def get(self, name: str, place: int) -> pa.Array | None:
        """The column of a name at its position; None if it was not read."""
        return self._batch.column(self._places[name][place]) if name in self._places else None


def _selected_stretches(
    batch: pa.RecordBatch, first: int, rows: frozenset[int] | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The stretches of selected rows, each with the ordinal of its first row."""
    if rows is None:
        yield first, batch
        return
    wanted = (row for row in range(first, first + batch.num_rows) if row in rows)
    for _, stretch in itertools.groupby(enumerate(wanted), lambda pair: pair[1] - pair[0]):
        places = [row for _, row in stretch]
        yield places[0], batch.slice(places[0] - first, len(places))
