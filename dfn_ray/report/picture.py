"""A run on one page: score histogram with threshold, and kept, borderline and dropped pairs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dfn_ray.errors import InputError
from dfn_ray.report.gallery import HISTOGRAM_BINS, Pair, overview, read_pairs, scored_tables
from dfn_ray.run import SELECTION, Run, open_run, require_scores

COLUMNS = 10
"""Pairs per row."""
SHOWN_BINS = 120
_KEPT, _DROPPED, _INK, _FAINT = "#2a7f62", "#b3452c", "#222222", "#8a8a8a"


def draw_run(run_uri: str, out: Path, *, truth: Mapping[str, str] | None = None) -> None:
    """Writes a PNG of a finished run to `out`.

    `truth` maps uids to a kind ("clean", "swapped", ...) if known: the histogram is then drawn by
    kind, and the pairs are labelled. Raises InputError when the run has no scores or no selection.
    """
    opened = open_run(run_uri)
    run = require_scores(opened)
    selection = opened.read_json(SELECTION)
    if selection is None or selection["threshold"] is None:
        raise InputError(
            f"{run_uri}: has no selection with a threshold to draw; run `dfn-ray select` first"
        )
    threshold, network = selection["threshold"], selection["network"]
    seen = overview(run, network, threshold, COLUMNS)
    rows: list[tuple[str, str, Sequence[Pair]]] = [
        ("kept: the best", _KEPT, read_pairs(run, seen.best)),
        ("kept: just above the threshold", _KEPT, read_pairs(run, seen.above)),
        ("dropped: just below", _DROPPED, read_pairs(run, seen.below)),
        ("dropped: the worst", _DROPPED, read_pairs(run, seen.worst)),
    ]
    figure = Figure(figsize=(16, 15.5), dpi=90, facecolor="white")
    grid = figure.add_gridspec(
        len(rows) + 1, COLUMNS, height_ratios=[1.5] + [1] * len(rows), hspace=0.72, wspace=0.12,
        left=0.04, right=0.98, top=0.94, bottom=0.04,
    )  # fmt: skip
    _draw_histogram(
        figure.add_subplot(grid[0, :]),
        run,
        network,
        threshold=threshold,
        truth=truth,
        counts=seen.counts,
    )
    figure.suptitle(
        f"{selection['k']:,} of {selection['samples']:,} samples kept: score of {network} "
        f"$\\geq$ {threshold:.4f}",
        x=0.04, ha="left", fontsize=17, color=_INK,
    )  # fmt: skip
    for index, (title, colour, shown) in enumerate(rows, start=1):
        for column in range(COLUMNS):
            axes = figure.add_subplot(grid[index, column])
            axes.axis("off")
            if column < len(shown):
                _draw_pair(axes, shown[column], colour, truth)
            if column == 0:
                axes.text(
                    0, 1.22, title, transform=axes.transAxes, fontsize=13, color=colour, ha="left"
                )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _draw_histogram(
    axes: Axes,
    run: Run,
    network: str,
    *,
    threshold: float,
    truth: Mapping[str, str] | None,
    counts: np.ndarray,
) -> None:
    """Scores as bars, by kind if the truth is known, with the threshold as a line."""
    used = np.flatnonzero(counts)
    low, high = (edge / HISTOGRAM_BINS * 2 - 1 for edge in (used[0], used[-1] + 1))
    edges = np.linspace(low, high, SHOWN_BINS + 1)
    if truth is None:
        fine = np.linspace(-1, 1, HISTOGRAM_BINS + 1)[:-1] + 1 / HISTOGRAM_BINS
        axes.hist(fine, edges.tolist(), weights=counts, color="#5b7fa6")
    else:
        by_kind: dict[str, list[float]] = {}
        for table in scored_tables(run, network, ["uid"]):
            for uid, score in zip(
                table["uid"].to_pylist(), table["score"].to_pylist(), strict=True
            ):
                by_kind.setdefault(truth.get(uid, "unknown"), []).append(score)
        kinds = sorted(by_kind, key=lambda kind: (kind != "clean", -len(by_kind[kind])))
        colours = ["#2a7f62", "#b3452c", "#d98e3f", "#7a5ea8", "#c9b037", "#8a8a8a", "#444444"]
        axes.hist(
            [by_kind[kind] for kind in kinds],
            edges.tolist(),
            stacked=True,
            label=[f"{kind} ({len(by_kind[kind]):,})" for kind in kinds],
            color=(colours * len(kinds))[: len(kinds)],
        )
        axes.legend(frameon=False, fontsize=11, loc="upper left")
    axes.axvline(threshold, color=_INK, linewidth=1.6)
    axes.text(
        threshold, axes.get_ylim()[1], " threshold", va="top", ha="left", fontsize=11, color=_INK
    )
    axes.set_xlabel("score (cosine similarity)", fontsize=11, color=_INK)
    axes.set_ylabel("samples", fontsize=11, color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_pair(axes: Axes, pair: Pair, colour: str, truth: Mapping[str, str] | None) -> None:
    image = Image.open(io.BytesIO(pair.image)).convert("RGB")
    image.thumbnail((256, 256))
    axes.imshow(np.asarray(image))
    axes.set_title(f"{pair.score:.3f}", fontsize=10, color=colour, pad=3)
    caption = "\n".join(textwrap.wrap(_printable(pair.text), 20)[:3])
    kind = truth.get(pair.uid) if truth else None
    axes.text(
        0.5, -0.04, caption,
        transform=axes.transAxes, fontsize=8.5, color=_INK, va="top", ha="center",
    )  # fmt: skip
    if kind is not None and kind != "clean":
        axes.text(
            0.5, -0.40, kind,
            transform=axes.transAxes, fontsize=8.5, color=_FAINT, va="top", ha="center",
        )  # fmt: skip


def _printable(text: str) -> str:
    """The caption escaped for matplotlib, where `$` starts a formula."""
    return text.replace("$", r"\$").replace("\n", " ")
