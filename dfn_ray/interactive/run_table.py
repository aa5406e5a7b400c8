"""The rows of a run's scores or subset, for Arrow, pandas, Ray Data and torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dfn_ray.config import Decode
from dfn_ray.errors import InputError
from dfn_ray.run import Run, rows_in_chunks
from dfn_ray.schema import Chunk

if TYPE_CHECKING:
    import pandas as pd
    import ray.data
    from torch.utils.data import IterableDataset

BATCH_ROWS = 1024
"""Rows of a table that `batches` yields, at most: of images of 50 KB, 50 MB."""
_PLACE = ("shard", "row")


@dataclass(frozen=True)
class RunTable:
    """Rows in Parquet files of a run. Nothing is read before it is asked for."""

    run: Run
    files: tuple[str, ...]
    """Names of the files below the run, in the order of their rows."""
    disowned: Mapping[str, Sequence[Chunk]] = field(default_factory=dict)
    """By file: chunks that another file contains too; their rows in this file are skipped."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns; none where there are no files."""
        return self.run.columns_of(self.files[0]) if self.files else []

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yields all rows with those columns (None: all), at most `BATCH_ROWS` a table.

        Raises InputError for a column that is not there, DamagedRunError for a damaged file.
        """
        self._require(columns)
        for name in self.files:
            yield from self._batches_of(name, columns)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one Arrow table in memory: about 45 bytes a row for uid and score."""
        tables = list(self.batches(columns))
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows as a pandas frame."""
        return self.to_arrow(columns).to_pandas()

    def to_ray(self, columns: Sequence[str] | None = None) -> ray.data.Dataset:
        """The rows as a Ray Dataset, a read task per file; connects to Ray as the verbs do."""
        from dfn_ray.on_ray.datasets import read_items  # noqa: PLC0415  loads Ray
        from dfn_ray.on_ray.session import connect  # noqa: PLC0415

        self._require(columns)
        connect()
        read = partial(replace(self, files=())._batches_of, columns=columns)
        return read_items(list(self.files), read, Decode())

    def to_torch(
        self,
        columns: Sequence[str] | None = None,
        *,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> IterableDataset[Any]:
        """The rows as a torch IterableDataset of dicts, or of what `transform` returns for each.

        Each worker of a DataLoader reads its share of the files.
        """
        from dfn_ray.interactive.torch_rows import TorchRows  # noqa: PLC0415  loads torch

        self._require(columns)
        return TorchRows(self, columns, transform)

    def _require(self, columns: Sequence[str] | None) -> None:
        absent = set(columns or ()) - set(self.columns)
        if absent and self.files:
            raise InputError(
                f"columns: need some of {', '.join(self.columns)}, got {', '.join(sorted(absent))}"
            )

    def _batches_of(self, name: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        doubled = self.disowned.get(name, ())
        read = None if columns is None else list(dict.fromkeys([*columns, *_PLACE * bool(doubled)]))
        with self.run.open_parquet(name) as parquet:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=read):
                table = pa.Table.from_batches([batch])
                if doubled:
                    table = table.filter(pa.array(~rows_in_chunks(table, doubled)))
                yield table if columns is None else table.select(list(columns))
