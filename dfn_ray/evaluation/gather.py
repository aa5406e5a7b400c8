"""Embeddings of a set on the driver, in the order of the set, independent of their arrival.

Evaluation sets are small: an image or caption with D = 1024 takes 4 KiB, so ImageNet's 50,000
images take 200 MB and DataComp's largest set (SUN397, 108,754 images) 450 MB. A set is freed before
the next one begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from dfn_ray.console.progress import Progress
from dfn_ray.evaluation.embedder import IMAGE, LABEL, TEXTS
from dfn_ray.on_ray.cells import Cell, column_array
from dfn_ray.preparing.statuses import status_counts
from dfn_ray.schema import ShardFault


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The N embedded images of a set, in the order of shard and row, and counts of the others."""

    image_ND: np.ndarray
    """float32, L2-normalised."""
    label_N: np.ndarray | None = None
    """int64 class numbers; None for retrieval."""
    text_MD: np.ndarray | None = None
    """float32, L2-normalised, captions of an image in succession; None for classification."""
    image_of_text_M: np.ndarray | None = None
    """int64, ascending: the number of each caption's image."""
    counts: Counter[str] = field(default_factory=Counter)
    """Samples by `status` or `status/reason`."""
    faults: dict[str, tuple[ShardFault, str]] = field(default_factory=dict)
    """Faults of shards by URI, with a readable detail."""
    notes: Counter[str] = field(default_factory=Counter)
    """Samples by `Note`."""


def gather(cells: Iterable[Cell], progress: Progress) -> Gathered:
    """Collects the embedded chunks of a set, and counts them in the progress."""
    tables: dict[tuple[str, int], pa.Table] = {}
    counts, notes = Counter[str](), Counter[str]()
    faults: dict[str, tuple[ShardFault, str]] = {}
    for cell in cells:
        chunk_counts = status_counts(cell.samples)
        counts += chunk_counts
        notes.update(cell.chunk.notes)
        progress.add(cell.chunk.rows, cell.chunk.bytes_read, chunk_counts, scorers=[cell.scorer])
        if cell.chunk.fault is not None:
            faults[cell.chunk.shard] = cell.chunk.fault, cell.chunk.detail
        if cell.inputs is not None and cell.inputs.num_rows:
            tables[cell.chunk.shard, cell.chunk.first_row] = cell.inputs
    ordered = [tables[key] for key in sorted(tables)]
    if not ordered:
        return Gathered(
            image_ND=np.zeros((0, 0), np.float32), counts=counts, faults=faults, notes=notes
        )
    gathered = Gathered(
        image_ND=np.concatenate([column_array(t[IMAGE], np.float32, (-1,)) for t in ordered]),
        counts=counts,
        faults=faults,
        notes=notes,
    )
    if LABEL in ordered[0].column_names:
        return replace(gathered, label_N=np.concatenate([t[LABEL].to_numpy() for t in ordered]))
    width = gathered.image_ND.shape[1]
    texts = [
        np.frombuffer(value.as_buffer(), np.float32).reshape(-1, width)
        for table in ordered
        for value in table[TEXTS]
    ]
    return replace(
        gathered,
        text_MD=np.concatenate(texts),
        image_of_text_M=np.repeat(np.arange(len(texts)), [len(text) for text in texts]),
    )
