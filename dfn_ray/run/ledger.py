"""The ledger of a run: its committed chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from dfn_ray.errors import FingerprintError, IncompleteRunError
from dfn_ray.run.layout import part_file
from dfn_ray.run.parts import Part, newest_first, part_names, read_part_with_rows, read_parts
from dfn_ray.run.places import rows_in_chunks
from dfn_ray.schema import Chunk, ShardFault, status_key
from dfn_ray.storage import Store


class Ledger:
    """The committed chunks of a run; a few hundred bytes per complete shard.

    Incomplete shards keep the (first_row, rows) of their chunks; complete ones only their row
    count.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        """Names of all committed parts, in the order they were added."""
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, tuple[ShardFault, str]] = {}
        self.bytes_read = 0
        self.notes: Counter[str] = Counter()
        """Samples by `Note`, over all committed chunks."""
        self.disowned: dict[str, list[Chunk]] = {}
        """Part -> its chunks that a part added earlier owns; their rows in it do not count."""
        self._rows: dict[str, int] = {}
        self._open: dict[str, dict[int, int]] = {}
        self._end: dict[str, int] = {}

    def add(self, name: str, chunks: Sequence[Chunk], counts: Mapping[str, int]) -> None:
        """Adds a committed part. The first part with a chunk owns it.

        Added in the order of `newest_first`, the ownership is the same for all readers.
        """
        self.names.append(name)
        doubled = [chunk for chunk in chunks if not self._claim(chunk)]
        if doubled:
            self.disowned[name] = doubled
        self.counts.update(counts)

    def is_complete(self, shard: str) -> bool:
        """True if the chunks of the shard tile it from row 0 to its end."""
        return shard in self._rows

    def open_chunks(self, shard: str) -> Mapping[int, int]:
        """First row -> row count of the committed chunks of an incomplete shard."""
        return self._open.get(shard, {})

    def last_chunk(self, shard: str) -> int | None:
        """First row of the last chunk of an incomplete shard; None if that is not committed."""
        return max(self._open[shard]) if shard in self._end else None

    def contiguous_rows(self, shard: str) -> int | None:
        """Rows of the committed chunks of an incomplete shard; None if these have a gap."""
        end = 0
        for first_row, rows in sorted(self.open_chunks(shard).items()):
            if first_row != end:
                return None
            end += rows
        return end

    @property
    def part_count(self) -> int:
        """Number of committed parts."""
        return len(self.names)

    @property
    def complete_shards(self) -> int:
        """Number of complete shards."""
        return len(self._rows)

    @property
    def samples(self) -> int:
        """Samples in committed chunks."""
        return sum(self._rows.values()) + sum(
            sum(chunks.values()) for chunks in self._open.values()
        )

    def require_complete(self, shards: Iterable[str]) -> None:
        """Raises IncompleteRunError, naming a shard, unless all are complete."""
        missing = [shard for shard in shards if not self.is_complete(shard)]
        if missing:
            raise IncompleteRunError(
                f"{len(missing)} shards are not fully scored, {missing[0]} among them: run the "
                "recipe again to resume where it stopped"
            )

    def _claim(self, chunk: Chunk) -> bool:
        """Records a chunk; False if it is already committed or contradicts the shard's end."""
        opened = self._open.get(chunk.shard, {})
        if chunk.shard in self._rows or chunk.first_row in opened:
            return False
        # A shard that was given up ends before its last row. A driver that had lost the run may
        # have written rows behind that end late: of the two, the one added first counts.
        end = self._end.get(chunk.shard)
        if end is not None and (chunk.last or chunk.first_row >= end):
            return False
        if chunk.last and any(row >= chunk.first_row + chunk.rows for row in opened):
            return False
        opened = self._open.setdefault(chunk.shard, {})
        opened[chunk.first_row] = chunk.rows
        self.bytes_read += chunk.bytes_read
        self.notes.update(chunk.notes)
        if chunk.fault:
            self.faults[chunk.shard] = (chunk.fault, chunk.detail)
        if chunk.last:
            self._end[chunk.shard] = chunk.first_row + chunk.rows
        self._close_if_complete(chunk.shard)
        return True

    def _close_if_complete(self, shard: str) -> None:
        end = self._end.get(shard)
        if end is None or sum(self._open[shard].values()) != end:
            return
        row = 0
        for first_row, rows in sorted(self._open[shard].items()):
            if first_row != row:
                return
            row += rows
        self._rows[shard] = end
        del self._open[shard], self._end[shard]


ReadParts = Callable[[Store, Sequence[str]], Iterable[Part]]
"""Reads the footers of the named parts, in that order."""


def scan_ledger(
    store: Store,
    fingerprint: str,
    names: Sequence[str] | None = None,
    *,
    read: ReadParts = read_parts,
) -> Ledger:
    """The ledger of the named parts; None: of all committed parts.

    `read`: `on_ray.footers.read_many_parts` for runs of any size.

    Raises FingerprintError for a part of other scores, DamagedRunError for an unreadable one.
    """
    ledger = Ledger()
    for part in read(store, part_names(store) if names is None else names):
        if part.header.fingerprint != fingerprint:
            raise FingerprintError(
                f"{store.uri_of(part_file(part.name))}: has fingerprint "
                f"{part.header.fingerprint[:12]}, but the run has {fingerprint[:12]}, so it does "
                "not belong to this run; move it out of the run"
            )
        ledger.add(part.name, part.chunks, part.header.counts)
    for name, chunks in ledger.disowned.items():
        ledger.counts.subtract(_counts_of(store, name, chunks))
    return ledger


def canonical_ledger(
    store: Store, fingerprint: str, ledger: Ledger, *, read: ReadParts = read_parts
) -> Ledger:
    """The ledger of the same parts, with the ownership of duplicate chunks that all readers use."""
    if not ledger.disowned:
        return ledger
    return scan_ledger(store, fingerprint, newest_first(ledger.names), read=read)


def _counts_of(store: Store, name: str, chunks: Sequence[Chunk]) -> Counter[str]:
    """Samples by status in the given chunks of a part, from its rows."""
    counts: Counter[str] = Counter()
    _, table = read_part_with_rows(store, name, ["shard", "row", "status", "reason"])
    for row in table.filter(pa.array(rows_in_chunks(table, chunks))).to_pylist():
        counts[status_key(row["status"], row["reason"])] += 1
    return counts
