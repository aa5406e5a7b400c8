"""The scorer: the networks on one device, from the inputs of a cell to score columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from dfn_ray.config import Captions, Recipe, Scorers
from dfn_ray.filtering.scoring.bounds import Bounds
from dfn_ray.network.compute_environment import environment_digest
from dfn_ray.network.filtering_network import FilteringNetwork
from dfn_ray.network.packed import PackedNetwork, build
from dfn_ray.on_ray.cells import Cell, column_array
from dfn_ray.on_ray.ray_metrics import ScorerMetrics
from dfn_ray.preparing.prepare import NetworkInputs, Preparation, pixels_column, tokens_column
from dfn_ray.preparing.several_captions import COUNTS, flattened, nested, reduce_scores
from dfn_ray.preparing.statuses import mark, with_bytes_of
from dfn_ray.schema import (
    Reason,
    Status,
    caption_scores_column,
    image_embedding_column,
    score_column,
    text_embedding_column,
)

_DEFAULT = Captions()
Timed = Callable[[str, int], AbstractContextManager[None]]
"""Returns the context of a network's forward pass over that many samples."""


def _untimed(_network: str, _samples: int) -> AbstractContextManager[None]:
    return nullcontext()


class Scorer:
    """Callable that returns a cell with scores; safe for several threads.

    Owns the networks on the device, which run for one thread at a time.
    """

    def __init__(
        self,
        networks: Sequence[PackedNetwork],
        inputs: Sequence[NetworkInputs],
        scorers: Scorers,
        deciding_network: str,
        bounds: Bounds,
        *,
        captions: Captions = _DEFAULT,
        timed: Timed = _untimed,
    ) -> None:
        # Ray gives actors without reserved CPUs a single thread. On the CPU the driver has set the
        # number.
        threads = scorers.threads or os.cpu_count()
        self._networks = [
            build(network, device=scorers.device, threads=threads, compile=scorers.compile)
            for network in networks
        ]
        self._packed, self._inputs = networks, inputs
        self._scorers, self._deciding_network, self._bounds = scorers, deciding_network, bounds
        self._captions, self._timed = captions, timed
        self._environment = environment_digest(scorers.device, threads)
        self._device = Lock()

    def __call__(self, cell: Cell) -> Cell:
        """The cell with a float32 score column per network; bytes only for scores >= bounds.lo."""
        assert cell.inputs is not None, "prepare comes before the scorer"
        samples, rows = cell.samples, cell.inputs["row"].to_numpy()
        finite = np.ones(len(rows), dtype=bool)
        for packed, network, inputs in zip(self._packed, self._networks, self._inputs, strict=True):
            with self._device, self._timed(packed.name, len(rows)):
                score_N, columns = self._columns(cell.inputs, packed, network, inputs)
            finite &= np.isfinite(score_N)
            for name, values in columns.items():
                samples = samples.append_column(name, _at_rows(values, rows, len(samples)))
        reasons = [None if good else Reason.NAN_SCORE for good in finite.tolist()]
        samples = mark(samples, rows, reasons, otherwise=Status.SCORED)
        return replace(
            cell,
            samples=self._drop_bytes(samples),
            inputs=None,
            environment=self._environment,
        )

    def _columns(
        self,
        inputs: pa.Table,
        packed: PackedNetwork,
        network: FilteringNetwork,
        which: NetworkInputs,
    ) -> tuple[np.ndarray, dict[str, pa.Array]]:
        """The scores (N,) of the inputs by one network, and its output columns."""
        height, width = packed.transform.size
        tokens, caption_count_N = inputs[tokens_column(which.tokenizer)], None
        if COUNTS in inputs.column_names:
            tokens, caption_count_N = flattened(tokens)
        result = network.score(
            column_array(inputs[pixels_column(which.transform)], np.uint8, (height, width, 3)),
            column_array(tokens, np.int32, (-1,)),
            batch_size=self._scorers.batch_size,
            keep_embeddings=self._scorers.keep_embeddings,
            caption_count_N=caption_count_N,
        )
        score_N, text_ND = result.score_N, result.text_embedding_ND
        columns: dict[str, pa.Array] = {}
        if caption_count_N is not None:
            is_included_M = flattened(inputs[COUNTS])[0].to_numpy()
            score_N, text_ND = reduce_scores(
                score_N, text_ND, caption_count_N, is_included_M, self._captions
            )
            if self._captions.keep_scores:
                kept = nested(_finite_or_null(result.score_N), caption_count_N).cast(
                    pa.list_(pa.float32())
                )
                columns[caption_scores_column(packed.name)] = kept
        columns = {score_column(packed.name): _finite_or_null(score_N), **columns}
        if result.image_embedding_ND is not None and text_ND is not None:
            columns[image_embedding_column(packed.name)] = _vectors(result.image_embedding_ND)
            columns[text_embedding_column(packed.name)] = _vectors(text_ND)
        return score_N, columns

    def _drop_bytes(self, samples: pa.Table) -> pa.Table:
        score = samples[score_column(self._deciding_network)]
        scored = pc.equal(samples["status"], Status.SCORED.value)
        travels = pc.and_(scored, pc.fill_null(pc.greater_equal(score, self._bounds.lo), False))
        return with_bytes_of(samples, travels)


def start_scorer(make: Callable[..., Scorer], networks: ray.ObjectRef, run_label: str) -> Scorer:
    """The scorer that `make` builds of networks from the object store; its work is counted."""
    return make(ray.get(networks), timed=ScorerMetrics(run_label).forward)


def plan_inputs(
    networks: Sequence[PackedNetwork], recipe: Recipe
) -> tuple[Preparation, tuple[NetworkInputs, ...]]:
    """The preparation for all networks, and each network's inputs.

    Equal transforms and tokenizers occur once.
    """
    transforms = list(dict.fromkeys(network.transform for network in networks))
    tokenizers = list(dict.fromkeys(network.tokenizer for network in networks))
    inputs = tuple(
        NetworkInputs(transforms.index(network.transform), tokenizers.index(network.tokenizer))
        for network in networks
    )
    return (
        Preparation(
            recipe.rules, recipe.decode, tuple(transforms), tuple(tokenizers), recipe.captions
        ),
        inputs,
    )


def _finite_or_null(score_N: np.ndarray) -> pa.Array:
    """Scores as a column; null if they are not finite."""
    return pa.array(score_N, mask=~np.isfinite(score_N))


def _vectors(values_ND: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values_ND.reshape(-1)), values_ND.shape[1])


def _at_rows(values: pa.Array, rows: np.ndarray, count: int) -> pa.Array:
    """A column of `count` rows with the values at `rows` and null elsewhere."""
    positions = np.full(count, -1, dtype=np.int64)
    positions[rows] = np.arange(len(rows))
    return values.take(pa.array(positions, mask=positions < 0))
