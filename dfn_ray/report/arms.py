"""Picture of models trained on different subsets: a bar per arm, a point per seed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

_DFN, _OTHER, _INK = "#2a7f62", "#9aa5ab", "#222222"


def draw_arms(value: Mapping[str, Any]) -> bytes:
    """A PNG of a comparison (`pipeline.comparison.compare_arms`): one panel per metric."""
    metrics = value["metrics"]
    figure = Figure(figsize=(6.5 * len(metrics), 4.5), dpi=110, facecolor="white")
    for index, (name, metric) in enumerate(metrics.items()):
        axes = figure.add_subplot(1, len(metrics), index + 1)
        arms = sorted(metric["arms"].items(), key=lambda item: item[1]["mean"])
        for row, (arm, found) in enumerate(arms):
            axes.barh(row, found["mean"], color=_DFN if arm == "dfn" else _OTHER, height=0.6)
            points = list(found["by_seed"].values())
            axes.scatter(points, [row] * len(points), color=_INK, s=18, zorder=3)
            axes.text(
                max(points), row, f"  {found['mean']:.3f}", va="center", color=_INK, fontsize=11
            )
        axes.set_yticks(range(len(arms)), [f"trained on {arm}" for arm, _ in arms], fontsize=11)
        axes.set_xlim(0, 1.25 * max(max(found["by_seed"].values()) for _, found in arms))
        axes.set_title(f"{name}\n{len(value['seeds'])} seeds, equal samples seen", loc="left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
