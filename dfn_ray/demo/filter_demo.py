"""`dfn-ray demo`: a real filtering job on the embedded pool, evaluated against known damage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dfn_ray.config import Recipe, recipe_from
from dfn_ray.console.tables import table
from dfn_ray.demo.area_under_curve import area_under_curve
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.selecting.selection_table import selection_table
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.report import draw_run
from dfn_ray.report.gallery import scored_tables
from dfn_ray.run import open_run

DATA = Path(__file__).parent / "data"
KEEP_FRACTION = 0.5
"""About the share of undamaged captions in the pool."""
PICTURE = "demo.png"
CLEAN = "clean"


def run_demo(out: Path, *, say: Callable[[str], None]) -> None:
    """Filters the embedded pool into `out`, verifies it in full, and prints the quality table."""
    recipe = demo_recipe(out)
    value = filter_pool(recipe)
    say("\n" + selection_table(recipe.run_uri, value) + "\n")
    verify_run(recipe.run_uri, full=True, say=lambda line: say(f"verified: {line}"))
    truth = demo_truth()
    say("\n" + quality_table(recipe, value["threshold"], truth) + "\n")
    picture = out / PICTURE
    draw_run(recipe.run_uri, picture, truth=truth)
    say(f"picture: {picture}")


def demo_recipe(out: Path) -> Recipe:
    """The demo's recipe: the embedded pool, the embedded filtering network, this machine's CPUs."""
    return recipe_from(
        {
            "run_uri": str(out),
            "pool": {"uri": [str(DATA / "pool")], "chunk_rows": 64},
            "networks": [{"name": "dfn", "model": f"local-dir:{DATA / 'network'}"}],
            "select": {"keep_fraction": KEEP_FRACTION, "of": "scored"},
        }
    )


def demo_truth() -> dict[str, str]:
    """Damage of each caption of the embedded pool: uid -> kind (clean, swapped, junk, ...)."""
    rows = pq.read_table(DATA / "truth.parquet", columns=["uid", "kind"])
    return dict(zip(rows["uid"].to_pylist(), rows["kind"].to_pylist(), strict=True))


def quality_table(recipe: Recipe, threshold: float, truth: Mapping[str, str]) -> str:
    """Precision, recall and AUC of the scores, clean against damaged captions, as a table."""
    scores = _scores_by_kind(recipe, truth)
    clean = scores.pop(CLEAN)
    damaged = np.concatenate(list(scores.values()))
    kept_clean, kept_damaged = (int((s >= threshold).sum()) for s in (clean, damaged))
    rows = [
        ("precision (clean among the kept)", f"{kept_clean / (kept_clean + kept_damaged):.3f}"),
        ("recall (kept among the clean)", f"{kept_clean / len(clean):.3f}"),
    ]
    for kind, values in sorted(scores.items(), key=lambda item: (-len(item[1]), item[0])):
        share = float((values < threshold).mean())
        rows.append(
            (
                f"AUC, clean against {kind}",
                f"{area_under_curve(clean, values):.3f}   {share:.0%} of {len(values):,} dropped",
            )
        )
    return table(rows)


def _scores_by_kind(recipe: Recipe, truth: Mapping[str, str]) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    run = open_run(recipe.run_uri)
    for rows in scored_tables(run, recipe.deciding_network, ["uid"]):
        for uid, score in zip(rows["uid"].to_pylist(), rows["score"].to_pylist(), strict=True):
            found.setdefault(truth[uid], []).append(score)
    return {kind: np.array(values) for kind, values in found.items()}
