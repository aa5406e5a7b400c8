"""The rows of a run as a torch dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from dfn_ray.interactive.run_table import RunTable


class TorchRows(IterableDataset[Any]):
    """Yields the rows of a table one by one; each worker of a DataLoader reads every n-th file."""

    def __init__(
        self,
        table: RunTable,
        columns: Sequence[str] | None,
        transform: Callable[[dict[str, Any]], Any] | None,
    ) -> None:
        self._table, self._columns, self._transform = table, columns, transform

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        files = self._table.files
        if worker is not None:
            files = files[worker.id :: worker.num_workers]
        for batch in replace(self._table, files=files).batches(self._columns):
            for row in batch.to_pylist():
                yield row if self._transform is None else self._transform(row)
