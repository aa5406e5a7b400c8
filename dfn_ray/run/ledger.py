"""Which chunks of a run are committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from dfn_ray.errors import FingerprintError, IncompleteRunError
from dfn_ray.run.layout import part_file
from dfn_ray.run.parts import newest_first, part_names, read_part_rows, read_parts
from dfn_ray.run.places import rows_in_chunks
from dfn_ray.schema import Chunk, ShardFault, status_key
from dfn_ray.storage import Store


class Ledger:
    """Which chunks are committed. A few hundred bytes a shard once the shard is complete.

    `unfinished` shards keep the (first_row, rows) of their chunks; complete ones only their row count.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        """Of all committed parts, as they were taken in."""
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, tuple[ShardFault, str]] = {}
        self.bytes_read = 0
        self.notes: Counter[str] = Counter()
        """Samples by `Note`, over all committed chunks."""
        self.disowned: dict[str, list[Chunk]] = {}
        """By part: chunks that an earlier part owns; their rows in this part do not count."""
        self._rows: dict[str, int] = {}
        self._open: dict[str, dict[int, int]] = {}
        self._end: dict[str, int] = {}

    def add(self, name: str, chunks: Sequence[Chunk], counts: Mapping[str, int]) -> None:
        """Take in a committed part. In the order of `newest_first` the ownership of doubled chunks is the same for all."""
        self.names.append(name)
        doubled = [chunk for chunk in chunks if not self._claim(chunk)]
        if doubled:
            self.disowned[name] = doubled
        self.counts.update(counts)

    def is_complete(self, shard: str) -> bool:
        """True when the chunks of the shard tile it from row 0 to its end."""
        return shard in self._rows

    def open_chunks(self, shard: str) -> Mapping[int, int]:
        """First row -> rows of the committed chunks of a shard that is not complete."""
        return self._open.get(shard, {})

    def last_chunk(self, shard: str) -> int | None:
        """First row of the committed chunk that ends an incomplete shard; None where that is not committed."""
        return max(self._open[shard]) if shard in self._end else None

    def contiguous_rows(self, shard: str) -> int | None:
        """Rows that the committed chunks of an incomplete shard hold; None where a chunk in front of others is absent."""
        end = 0
        for first_row, rows in sorted(self.open_chunks(shard).items()):
            if first_row != end:
                return None
            end += rows
        return end

    @property
    def parts(self) -> int:
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
        """Raise IncompleteRunError, naming a shard, unless all are complete."""
        missing = [shard for shard in shards if not self.is_complete(shard)]
        if missing:
            raise IncompleteRunError(
                f"{len(missing)} shards are not fully scored, {missing[0]} among them: run the recipe "
                "again, it goes on where it stopped"
            )

    def _claim(self, chunk: Chunk) -> bool:
        """Record a chunk; False when it is already committed, or its shard ends elsewhere by what is."""
        opened = self._open.get(chunk.shard, {})
        if chunk.shard in self._rows or chunk.first_row in opened:
            return False
        # A shard that was given up ends before its last row: of that end and of rows behind it, which a driver that had
        # lost the run may have written late, what came first counts.
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


def scan_ledger(store: Store, fingerprint: str, names: Sequence[str] | None = None) -> Ledger:
    """The ledger of the parts of those names, None: of everything committed to a run.

    Raises FingerprintError on a part of other scores, DamagedRunError on one that cannot be read.
    """
    ledger = Ledger()
    for part in read_parts(store, part_names(store) if names is None else names):
        if part.header.fingerprint != fingerprint:
            raise FingerprintError(
                f"{store.uri_of(part_file(part.name))}: made under fingerprint "
                f"{part.header.fingerprint[:12]}, the run has {fingerprint[:12]}; it is not of this run"
            )
        ledger.add(part.name, part.chunks, part.header.counts)
    for name, chunks in ledger.disowned.items():
        ledger.counts.subtract(_counts_of(store, name, chunks))
    return ledger


def canonical_ledger(store: Store, fingerprint: str, ledger: Ledger) -> Ledger:
    """The ledger of the same parts with the ownership of doubled chunks that all readers have, in whatever order it was made."""
    if not ledger.disowned:
        return ledger
    return scan_ledger(store, fingerprint, newest_first(ledger.names))


def _counts_of(store: Store, name: str, chunks: Sequence[Chunk]) -> Counter[str]:
    """Samples by status of some chunks of a part, from its rows."""
    counts: Counter[str] = Counter()
    table = read_part_rows(store, name, ["shard", "row", "status", "reason"])
    for row in table.filter(pa.array(rows_in_chunks(table, chunks))).to_pylist():
        counts[status_key(row["status"], row["reason"])] += 1
    return counts
