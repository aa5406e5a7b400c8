"""The paper's findings in miniature, on the demo's data.

    python benchmarks/proof.py OUT

Every point is a run of `dfn-ray pipeline` with three seeds; finished points are skipped. An hour
on two cores.

    base          the DFN's subset, the whole pool, a random subset of equal size, metadata rules
    keep-*        other fractions with the same DFN
    dfn-*         filtering networks of other quality and data
    poison-*      filtering networks trained on clean pairs, a share replaced by unfiltered ones

Writes OUT/proof.json and OUT/proof.png, and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dfn_ray.config import PipelineRecipe, recipe_from
from dfn_ray.console.tables import grid
from dfn_ray.demo.filter_demo import demo_truth
from dfn_ray.demo.pipeline_demo import DATA, pipeline_demo_values
from dfn_ray.pipeline.pipeline import run_pipeline
from dfn_ray.run import open_run, scan_subset

METRIC = "emoji, acc1"
POISONED_SAMPLES = 1400
"""Samples of a poisoned filter set, clean and unfiltered: as many as the pool has."""
POISON = (0, 25, 50, 100)
FRACTIONS = (25, 75)


def main() -> None:
    """Runs the remaining points, and prints and draws all results."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("out", type=Path)
    options.add_argument("--points", nargs="*", help="run only these")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    for name, values in points(given.out).items():
        if given.points and name not in given.points:
            continue
        print(f"\n#### {name}", flush=True)
        recipe = recipe_from(values, kind=PipelineRecipe)
        value = run_pipeline(recipe, say=lambda text: print(text, flush=True))
        found[name] = value["metrics"][METRIC] | {"clean": _clean_share(recipe)}
        (given.out / "proof.json").write_text(json.dumps(found, indent=1))
    print("\n" + tables(found))
    draw(found, given.out / "proof.png")


def points(out: Path) -> dict[str, dict[str, Any]]:
    """The recipes, by name."""
    base = pipeline_demo_values(str(out / "base"))
    base |= {
        "arms": ["dfn", "pool", "random", "rules"],
        # Nearly all names have two words; the junk captions (IMG_1234.jpg) have one.
        "rules": {"min_caption_words": 2, "min_caption_chars": 6},
    }
    found = {"base": base}
    for percent in FRACTIONS:
        pipeline = pipeline_demo_values(str(out / f"keep-{percent}")) | {
            "arms": ["dfn"],
            "dfn": None,
        }
        pipeline["filter"] = {
            "networks": [{"model": f"local-dir:{out / 'base' / 'dfn' / 'network'}"}],
            "select": {"keep_fraction": percent / 100, "of": "scored"},
        }
        found[f"keep-{percent}"] = pipeline
    clean, pool = base["dfn"]["sources"][0], {"uri": [str(DATA / "pool")], "chunk_rows": 64}
    found["dfn-short"] = _with_dfn(out / "dfn-short", samples_seen=20_480)
    found["dfn-few"] = _with_dfn(out / "dfn-few", sources=[{**clean, "sample_count": 700}])
    for percent in POISON:
        dirty = POISONED_SAMPLES * percent // 100
        sources = [
            *([{**clean, "sample_count": POISONED_SAMPLES - dirty}] if percent < 100 else []),
            *([{"name": "unfiltered", "pool": pool, "sample_count": dirty}] if percent else []),
        ]
        found[f"poison-{percent}"] = _with_dfn(out / f"poison-{percent}", sources=sources)
    return found


def _with_dfn(out: Path, **changes: Any) -> dict[str, Any]:
    pipeline = pipeline_demo_values(str(out))
    return pipeline | {"arms": ["dfn"], "dfn": pipeline["dfn"] | changes}


def _clean_share(recipe: PipelineRecipe) -> float:
    """Share of the subset whose captions are undamaged."""
    truth = demo_truth()
    kept = [
        truth[uid]
        for _, table in scan_subset(open_run(recipe.uri("filter")), ["uid"])
        for uid in table["uid"].to_pylist()
    ]
    return sum(kind == "clean" for kind in kept) / len(kept)


def tables(found: Mapping[str, Any]) -> str:
    """All points as a table."""
    rows = [
        (
            name,
            arm,
            f"{value['mean']:.3f}",
            f"{value['spread']:.3f}",
            "-" if metric["network"] is None or arm != "dfn" else f"{metric['network']:.3f}",
            f"{metric['clean']:.1%}" if arm == "dfn" else "-",
        )
        for name, metric in found.items()
        for arm, value in metric["arms"].items()
    ]
    header = ("point", "trained on", "acc1", "spread", "the filter itself", "clean in subset")
    return grid(header, rows, numbers=2)


def draw(found: Mapping[str, Any], out: Path) -> None:
    """Arms, quality, poison and fractions in one picture."""
    figure = Figure(figsize=(17, 4.4), dpi=100, facecolor="white")
    panels = [figure.add_subplot(1, 4, at + 1) for at in range(4)]
    if "base" in found:
        arms = found["base"]["arms"]
        for at, (arm, value) in enumerate(arms.items()):
            panels[0].bar(at, value["mean"], color="#2a7f62" if arm == "dfn" else "#9aa5ab")
            panels[0].scatter(
                [at] * len(value["by_seed"]), value["by_seed"].values(), color="k", s=12
            )
        panels[0].set_xticks(range(len(arms)), arms)
    above = True  # neighbouring labels alternate so that they do not overlap
    for name, metric in sorted(found.items(), key=lambda item: item[1]["network"] or 0):
        arm = metric["arms"]["dfn"]
        if name.startswith(("base", "dfn", "poison")):
            panels[1].errorbar(
                metric["network"], arm["mean"], arm["spread"], fmt="o", color="#2a7f62"
            )
            panels[1].annotate(
                name,
                (metric["network"], arm["mean"]),
                xytext=(4, 10 if above else -14),
                textcoords="offset points",
                fontsize=8,
            )
            above = not above
        if name.startswith("poison"):
            percent = int(name.partition("-")[2])
            panels[2].errorbar(percent, arm["mean"], arm["spread"], fmt="o", color="#2a7f62")
            panels[2].scatter(percent, metric["network"], marker="x", color="#b3452c")
    for percent, value in _by_fraction(found).items():
        panels[3].errorbar(percent, value["mean"], value["spread"], fmt="o", color="#2a7f62")
    titles = (
        "trained on",
        "the filter itself against what it induces",
        "unfiltered share of the filter's data, %\n(o induced, x the filter itself)",
        "kept by the DFN, % (100: the pool)",
    )
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, loc="left", fontsize=11)
        panel.set_ylim(bottom=0)
        panel.set_ylabel("zero-shot acc1, held-out artist")
    figure.tight_layout()
    figure.savefig(out)


def _by_fraction(found: Mapping[str, Any]) -> dict[int, Any]:
    values = {
        int(name.partition("-")[2]): metric["arms"]["dfn"]
        for name, metric in found.items()
        if name.startswith("keep")
    }
    if "base" in found:
        values |= {50: found["base"]["arms"]["dfn"], 100: found["base"]["arms"]["pool"]}
    return values


if __name__ == "__main__":
    main()
