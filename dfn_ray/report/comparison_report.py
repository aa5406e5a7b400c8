"""A comparison of filters as printed tables and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dfn_ray.console.tables import grid
from dfn_ray.report.compare import FilterComparison


def comparison_lines(found: FilterComparison) -> str:
    """The comparison as printed tables."""
    names = [item.name for item in found.filters]
    header = (
        f"{found.samples:,} samples scored by all filters; each keeps its best "
        f"{found.keep_fraction:.1%}"
    )
    parts = [
        header,
        grid(("overlap", *names), _rows(names, found.overlap), numbers=1),
        grid(("Spearman", *names), _rows(names, found.spearman), numbers=1),
    ]
    if found.keep_rates:
        rows = [
            (group, *(f"{rate:.1%}" for rate in rates)) for group, rates in found.keep_rates.items()
        ]
        parts.append(grid(("keep rate", *names), rows, numbers=1))
    metrics = sorted({name for item in found.filters for name in item.induced})
    for metric in metrics:
        rows = [
            (item.name, _figure(item.own.get(metric)), _figure(item.induced.get(metric)))
            for item in found.filters
        ]
        parts.append(grid((metric, "the filter itself", "trained on its subset"), rows, numbers=1))
    return "\n\n".join(parts)


def draw_comparison(found: FilterComparison) -> bytes:
    """A PNG with overlap and rank correlation.

    If models were trained, also with their metrics against those of the filters themselves.
    """
    names = [item.name for item in found.filters]
    metric = next((name for item in found.filters for name in item.induced), None)
    panels = 2 if metric is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.6), dpi=110, facecolor="white")
    for at, (title, values) in enumerate(
        ((f"overlap at {found.keep_fraction:.0%}", found.overlap), ("Spearman", found.spearman))
    ):
        axes = figure.add_subplot(1, panels, at + 1)
        axes.imshow(values, vmin=0, vmax=1, cmap="Greens")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="#222222")
        axes.set_title(title, loc="left")
    if metric is not None:
        axes = figure.add_subplot(1, panels, 3)
        for item in found.filters:
            if metric in item.induced:
                own = item.own.get(metric, 0.0)
                axes.scatter(own, item.induced[metric], color="#2a7f62", s=40)
                axes.annotate(f"  {item.name}", (own, item.induced[metric]))
        axes.set_xlabel(f"the filter itself: {metric}")
        axes.set_ylabel("trained on its subset")
        axes.set_title("filter vs. model trained on its subset", loc="left")
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _rows(names: Sequence[str], values: np.ndarray) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{value:.3f}" for value in row)) for name, row in zip(names, values, strict=True)
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
