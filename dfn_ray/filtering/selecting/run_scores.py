"""The scores of a run, read part by part for the selection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.on_ray.slices import run_in_slices
from dfn_ray.run import (
    Run,
    read_ahead,
    read_columns,
    rows_in_chunks,
    sample_position,
    shard_numbers,
)
from dfn_ray.schema import Chunk, Status, score_column
from dfn_ray.uids.records import uid_records

Found = TypeVar("Found")
Read = TypeVar("Read")


class ScoredPart(Mapping[str, np.ndarray]):
    """The scored rows of a part as `ranking.Rows`.

    `columns` are read together with the scores, others when they are asked for.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        network: str,
        shard_index: Mapping[str, int],
        disowned: Sequence[Chunk] = (),
        columns: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._run, self._shard_index = run, shard_index
        self._score = score_column(network)
        place = ("shard", "row") if disowned else ()
        read = dict.fromkeys(["status", self._score, *place, *columns])
        table = read_columns(run, name, [*read])
        mask = pc.equal(table["status"], Status.SCORED.value).to_numpy(zero_copy_only=False)
        if disowned:
            mask &= ~rows_in_chunks(table, disowned)
        self._mask = pa.array(mask)
        self._rows = table.filter(self._mask)
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("score", "uid", "shard", "row"))

    def __len__(self) -> int:
        return 4

    @property
    def position(self) -> np.ndarray:
        """One uint64 per row that identifies the sample in the run, see `sample_position`."""
        return sample_position(self["shard"], self["row"])

    def table(self, columns: Sequence[str]) -> pa.Table:
        """The given columns of the scored rows."""
        if absent := [name for name in columns if name not in self._rows.column_names]:
            more = read_columns(self._run, self.name, absent).filter(self._mask)
            for field, values in zip(more.schema, more.columns, strict=True):
                self._rows = self._rows.append_column(field, values)
        return self._rows.select(list(columns))

    def _array(self, name: str) -> np.ndarray:
        (values,) = self.table([self._score if name == "score" else name]).columns
        if name == "uid":
            return uid_records(values)
        if name == "shard":
            return shard_numbers(values, self._shard_index)
        return values.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class RunScores:
    """All scored rows of a run as an `exact_k.RowSource`. Small enough to send to tasks."""

    run: Run
    network: str
    names: tuple[str, ...]
    disowned: Mapping[str, Sequence[Chunk]]
    columns: tuple[str, ...] = ()
    """Columns that are read together with the scores."""

    def __call__(self) -> Iterator[ScoredPart]:
        """Every part once, in the order of `names`, with read-ahead."""
        return read_ahead(self.names, self.part)

    def map_parts(self, read: Callable[[ScoredPart], Read]) -> Iterator[Read]:
        """The results of a function for every part, in the order of `names`.

        The columns that the function loads are read ahead as well.
        """
        return read_ahead(self.names, lambda name: read(self.part(name)))

    def map_slices(
        self,
        find: Callable[[Iterator[Any]], Found],
        read: Callable[[ScoredPart], Any] | None = None,
    ) -> Iterator[Found]:
        """The results of a function for slices of the parts; in Ray tasks if there are many.

        With `read` the function is given its results, see `map_parts`.
        """
        return run_in_slices(self.names, partial(_find_in, self.without_parts(), read, find))

    def with_columns(self, *columns: str) -> RunScores:
        """The same, with columns that are read together with the scores."""
        return replace(self, columns=columns)

    def without_parts(self) -> RunScores:
        """The same without part names, to be sent to tasks."""
        return replace(self, names=())

    def part(self, name: str) -> ScoredPart:
        """The scored rows of one part."""
        return ScoredPart(
            self.run,
            name,
            self.network,
            self.shard_index,
            self.disowned.get(name, ()),
            self.columns,
        )

    @property
    def shard_uris(self) -> list[str]:
        """The shards by number, in the order of the pool listing, which is sorted by URI."""
        return _shards(self.run)[0]

    @property
    def shard_index(self) -> Mapping[str, int]:
        """Shard URI -> its number."""
        return shard_index(self.run)

    def positions(self, table: pa.Table) -> np.ndarray:
        """The `sample_position` of each row of a table with `shard` and `row`."""
        return sample_position(
            shard_numbers(table["shard"], self.shard_index), table["row"].to_numpy()
        )


def _find_in(
    scores: RunScores,
    read: Callable[[ScoredPart], Any] | None,
    find: Callable[[Iterator[Any]], Found],
    names: Sequence[str],
) -> Found:
    parts = replace(scores, names=tuple(names))
    return find(parts.map_parts(read) if read else parts())


_SHARDS: dict[tuple[str, str, str], tuple[list[str], Mapping[str, int]]] = {}
"""URIs and numbers of the shards of the run that this process read last, so that a `RunScores` need
not carry them to tasks."""


_READING_SHARDS = threading.Lock()


def shard_index(run: Run) -> Mapping[str, int]:
    """The number of each shard of a run: its index in the pool listing."""
    return _shards(run)[1]


def _shards(run: Run) -> tuple[list[str], Mapping[str, int]]:
    key = (run.uri, run.listing_name, run.description["pool"]["digest"])
    with _READING_SHARDS:  # read once, not by each of the read-ahead threads
        if key not in _SHARDS:
            _SHARDS.clear()
            uris = run.listing()["uri"].to_pylist()
            _SHARDS[key] = uris, {uri: number for number, uri in enumerate(uris)}
        return _SHARDS[key]
