"""Recomputation of scores of a run from the bytes of the pool, compared to the last bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from dfn_ray.config import Recipe, Scorers, recipe_from
from dfn_ray.errors import FingerprintError, VerificationError
from dfn_ray.filtering.scoring.bounds import NOTHING
from dfn_ray.filtering.scoring.fingerprint import scoring_fingerprint
from dfn_ray.filtering.scoring.scorer import Scorer, plan_inputs
from dfn_ray.on_ray.cells import Cell
from dfn_ray.pool import read_chunk, shards_of_listing
from dfn_ray.preparing.prepare import prepare
from dfn_ray.resolving.fetch_networks import fetch_networks
from dfn_ray.run import Part, Run, differences, part_file, read_part, rows_in_chunks
from dfn_ray.schema import Chunk, caption_scores_column, score_column

TOLERANCES = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 2e-3}
"""Allowed difference of a cosine similarity in another environment, by precision of the network."""


@dataclass(frozen=True, kw_only=True)
class RescoreReport:
    """Result of a rescore."""

    chunks: int
    samples: int
    bit_for_bit: int
    """Chunks of parts that were scored in the environment of this process."""
    tolerance: float
    """Allowed difference of scores of the other chunks."""
    largest: float
    """Largest difference among the other chunks."""
    absent_device: str = ""
    """Device of the run if this machine lacks it, so that a CPU was used; else empty."""

    def __str__(self) -> str:
        how = f"{self.bit_for_bit:,} of them bit for bit"
        if others := self.chunks - self.bit_for_bit:
            how += (
                f", {others:,} scored in another environment within {self.tolerance:g}, at most "
                f"{self.largest:.1e}"
            )
        if self.absent_device:
            how += (
                f"; on the CPU, because the run was scored on {self.absent_device}, which this "
                "machine does not have"
            )
        return f"{self.samples:,} samples in {self.chunks:,} chunks scored again, {how}"


def rescore(run: Run, count: int) -> RescoreReport:
    """Scores `count` random chunks of a run again in this process; compares statuses and scores.

    Bit for bit if the part was scored in the same environment as this one (device, threads, library
    versions), else within the tolerance of the network's precision; the latter also on the CPU of a
    machine without the run's device. Raises VerificationError naming the first sample that differs,
    FingerprintError when the networks have changed.
    """
    recipe = recipe_from(run.recipe, kind=Recipe)
    shards = {shard.uri: shard for shard in shards_of_listing(run.listing())}
    networks = fetch_networks(recipe)
    now = scoring_fingerprint(
        recipe, {network.name: network.fingerprint() for network in networks}, list(shards.values())
    )
    if problems := list(differences(run.description["fingerprint"], now, sides=("run", "this"))):
        raise FingerprintError(
            f"{run.uri}: cannot be scored again with the same settings:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )
    preparation, inputs = plan_inputs(networks, recipe)
    scorers = _scorers_here(recipe.scorers)
    scorer = Scorer(
        networks, inputs, scorers, recipe.deciding_network, NOTHING, captions=recipe.captions
    )
    tolerance = {score_column(n.name): TOLERANCES[n.precision] for n in networks}
    if recipe.pool.several_captions and recipe.captions.keep_scores:
        tolerance |= {caption_scores_column(n.name): TOLERANCES[n.precision] for n in networks}
    samples, exact, chunks, largest = 0, 0, 0, 0.0
    for part, chunk in _drawn(run, count):
        cell = Cell(chunk=chunk, samples=read_chunk(shards[chunk.shard], recipe.pool, chunk))
        again = scorer(prepare(cell, preparation=preparation))
        same = part.header.environments == (again.environment,)
        where = f"{run.store.uri_of(part_file(part.name))}: "
        stored = _rows(run, part, chunk)
        off = _compare(
            where,
            chunk,
            stored,
            again.samples,
            {n: 0.0 if same else t for n, t in tolerance.items()},
        )
        largest = max(largest, off)
        samples, chunks, exact = samples + chunk.rows, chunks + 1, exact + same
    return RescoreReport(
        chunks=chunks,
        samples=samples,
        bit_for_bit=exact,
        tolerance=max(tolerance.values()),
        largest=largest,
        absent_device=recipe.scorers.device if scorers != recipe.scorers else "",
    )


def _scorers_here(scorers: Scorers) -> Scorers:
    """The scorers on their device, or on the CPU if this machine has no such device."""
    if scorers.device == "cpu" or torch.cuda.is_available():
        return scorers
    return replace(scorers, device="cpu")


def _drawn(run: Run, count: int) -> Iterator[tuple[Part, Chunk]]:
    """At most `count` distinct random chunks with samples, each with the part that contains it."""
    # Not seeded: each verification draws other chunks, so that repeated ones cover more.
    draw = random.SystemRandom()
    names = run.part_names()
    draw.shuffle(names)
    left = count
    for turn, name in enumerate(names):
        part = read_part(run.store, name)
        chunks = [chunk for chunk in part.chunks if chunk.rows]
        some = -(-left // (len(names) - turn))
        for chunk in draw.sample(chunks, min(some, left, len(chunks))):
            left -= 1
            yield part, chunk
        if not left:
            return


def _rows(run: Run, part: Part, chunk: Chunk) -> pa.Table:
    table = run.read_table(part_file(part.name))
    return table.filter(pa.array(rows_in_chunks(table, [chunk])))


def _compare(
    where: str, chunk: Chunk, stored: pa.Table, again: pa.Table, tolerances: dict[str, float]
) -> float:
    """Returns the largest difference of two scores; raises VerificationError on a wrong value."""
    if stored.num_rows != again.num_rows:
        raise VerificationError(
            f"{where}has {stored.num_rows} rows of {chunk.shard} from row {chunk.first_row}, the "
            f"pool has {again.num_rows}"
        )
    for name in ("row", "uid", "key", "status", "reason", "width", "height"):
        for at, (a, b) in enumerate(
            zip(stored[name].to_pylist(), again[name].to_pylist(), strict=True)
        ):
            if a != b:
                raise VerificationError(_difference(where, chunk, at, name, (a, b)))
    largest = 0.0
    for name, tolerance in tolerances.items():
        (a, row_of_a), (b, row_of_b) = (_scores_and_rows(table[name]) for table in (stored, again))
        if not np.array_equal(row_of_a, row_of_b):
            at = next(n for n, (x, y) in enumerate(zip_longest(row_of_a, row_of_b)) if x != y)
            row = int((row_of_a if at < len(row_of_a) else row_of_b)[at])
            values = stored[name][row].as_py(), again[name][row].as_py()
            raise VerificationError(_difference(where, chunk, row, name, values))
        off = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
        wrong = ~(off <= tolerance)
        if wrong.any():
            at = int(np.argmax(wrong))
            values = float(a[at]), float(b[at])
            raise VerificationError(_difference(where, chunk, int(row_of_a[at]), name, values))
        largest = max(largest, float(off.max(initial=0.0)))
    return largest


def _scores_and_rows(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a column of numbers or lists of numbers, and the row of each."""
    if not pa.types.is_list(column.type):
        return column.to_numpy(zero_copy_only=False), np.arange(len(column))
    rows = pc.list_parent_indices(column.combine_chunks()).to_numpy()
    return pc.list_flatten(column).to_numpy(zero_copy_only=False), rows


def _difference(where: str, chunk: Chunk, at: int, name: str, values: tuple[object, object]) -> str:
    stored, again = values
    sample = f"{chunk.shard} row {chunk.first_row + at}"
    return f"{where}{name} of {sample} is {stored!r}, scored again {again!r}"
