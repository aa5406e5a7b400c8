"""The network on one device, as an actor that turns cells into embeddings.

The inputs of a cell determine what is embedded: pixels, captions, or both. A class is a sample
without an image whose captions are its prompts, so class names and images use the same actors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from dfn_ray.config import Scorers
from dfn_ray.network.packed import PackedNetwork, build
from dfn_ray.network.tokenizer import tokenize
from dfn_ray.on_ray.cells import Cell, array_column, column_array
from dfn_ray.on_ray.network_actor import NetworkActor
from dfn_ray.preparing.prepare import Preparation, pixels_column, prepare
from dfn_ray.preparing.statuses import mark
from dfn_ray.resolving.prompts import prompt
from dfn_ray.schema import Chunk, Reason, Status

LABEL = "label"
"""Inputs and embeddings: int64, the class number."""
CAPTIONS = "captions"
"""Inputs: list of strings."""
IMAGE = "image_embedding"
"""Embeddings: fixed-size binary, float32 (D,), L2-normalised."""
TEXTS = "text_embeddings"
"""Embeddings: binary, float32 (captions, D), each L2-normalised."""

_CLASSES_PER_CELL = 32
"""Classes whose prompts share a cell: 2,560 texts with open_clip's 80 templates, 5 MiB at D =
512."""


def with_labels(cell: Cell, *, preparation: Preparation) -> Cell:
    """Returns the cell with pixels and class numbers as inputs, without the samples' bytes."""
    cell, texts = _prepared(cell, preparation)
    return _with_input(cell, LABEL, pc.cast(texts, pa.int64()))


def with_captions(cell: Cell, *, preparation: Preparation) -> Cell:
    """Returns the cell with pixels and lists of captions as inputs, without the samples' bytes."""
    cell, texts = _prepared(cell, preparation)
    return _with_input(cell, CAPTIONS, texts)


def prompt_cells(name: str, classnames: Sequence[str], templates: Sequence[str]) -> Iterator[Cell]:
    """Yields classes as cells of a shard called `name`; the captions of a class are its prompts."""
    for first in range(0, len(classnames), _CLASSES_PER_CELL):
        names = classnames[first : first + _CLASSES_PER_CELL]
        prompts = [[prompt(template, name) for template in templates] for name in names]
        nothing = pa.nulls(len(names), pa.string())
        yield Cell(
            chunk=Chunk(
                shard=name,
                first_row=first,
                rows=len(names),
                last=first + len(names) == len(classnames),
            ),
            samples=pa.table({"status": nothing, "reason": nothing}),
            inputs=pa.table(
                {
                    "row": pa.array(np.arange(len(names))),
                    CAPTIONS: pa.array(prompts, pa.large_list(pa.large_string())),
                }
            ),
        )


class Embedder:
    """A callable that embeds a cell. Owns the network on the device."""

    def __init__(self, packed: PackedNetwork, scorers: Scorers) -> None:
        # Ray limits actors without reserved CPUs to a single thread.
        threads = scorers.threads or os.cpu_count()
        self._network = build(
            packed, device=scorers.device, threads=threads, compile=scorers.compile
        )
        self._packed, self._batch_size = packed, scorers.batch_size

    def __call__(self, cell: Cell) -> Cell:
        """Returns the cell with embeddings in place of inputs, and with every sample's status."""
        inputs = cell.inputs
        assert inputs is not None, "cells must have inputs"
        rows = inputs["row"].to_numpy()
        if len(rows) == 0:
            return replace(cell, inputs=None)
        finite = np.ones(len(rows), dtype=bool)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            name: inputs[name] for name in ("row", LABEL) if name in inputs.column_names
        }
        if pixels_column(0) in inputs.column_names:
            image_ND = self._images(inputs[pixels_column(0)])
            finite &= np.isfinite(image_ND).all(axis=1)
            columns[IMAGE] = array_column(image_ND)
        if CAPTIONS in inputs.column_names:
            captions = inputs[CAPTIONS].combine_chunks()
            text_MD = self._texts(captions.flatten().to_pylist())
            row_of_M = np.repeat(np.arange(len(rows)), pc.list_value_length(captions).to_numpy())
            finite[row_of_M[~np.isfinite(text_MD).all(axis=1)]] = False
            columns[TEXTS] = _grouped(text_MD, row_of_M, len(rows))
        reasons = [None if good else Reason.NAN_SCORE for good in finite.tolist()]
        return replace(
            cell,
            samples=mark(cell.samples, rows, reasons, otherwise=Status.SCORED),
            inputs=pa.table(columns).filter(pa.array(finite)),
        )

    def _images(self, pixels: pa.ChunkedArray) -> np.ndarray:
        height, width = self._packed.transform.size
        pixels_NHWC = column_array(pixels, np.uint8, (height, width, 3))
        return (
            self._network.embed_all_images(pixels_NHWC, batch_size=self._batch_size).cpu().numpy()
        )

    def _texts(self, captions: list[str]) -> np.ndarray:
        tokens_ML = tokenize(self._packed.tokenizer, captions)
        return self._network.embed_all_texts(tokens_ML, batch_size=self._batch_size).cpu().numpy()


class EmbedderActor(NetworkActor):
    """The actors of evaluation."""


def start_embedder(network: ray.ObjectRef, scorers: Scorers) -> Embedder:
    """The embedder of a network from the object store."""
    (packed,) = ray.get(network)
    return Embedder(packed, scorers)


def _prepared(cell: Cell, preparation: Preparation) -> tuple[Cell, pa.ChunkedArray]:
    """The cell with pixels as inputs and only the status of its samples; and the inputs' texts."""
    texts = cell.samples["text"]
    cell = prepare(cell, preparation=preparation)
    assert cell.inputs is not None
    samples = cell.samples.select(["status", "reason"])
    return replace(cell, samples=samples), texts.take(cell.inputs["row"])


def _with_input(cell: Cell, name: str, values: pa.Array | pa.ChunkedArray) -> Cell:
    assert cell.inputs is not None
    return replace(cell, inputs=cell.inputs.append_column(name, values))


def _grouped(text_MD: np.ndarray, row_of_M: np.ndarray, count: int) -> pa.Array:
    """A column of `count` values, each the concatenated embeddings of a row's captions."""
    ends = np.searchsorted(row_of_M, np.arange(count + 1)) * text_MD.shape[1] * text_MD.itemsize
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        count,
        [
            None,
            pa.py_buffer(ends.astype(np.int64)),
            pa.py_buffer(np.ascontiguousarray(text_MD)),
        ],
    )
