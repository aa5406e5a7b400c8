"""The counts of a selection as a printed table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfn_ray.console.printable import printable_line
from dfn_ray.console.tables import note_rows, table
from dfn_ray.run import State


def selection_table(run_uri: str, value: Mapping[str, Any]) -> str:
    """A table of all samples of the pool by outcome, from `selection.json`; its counts add up."""
    counts = dict(value["counts"])
    samples, kept = value["samples"], value["k"]
    rows: list[tuple[str, int | str]] = [("samples in the pool", samples)]
    for name in sorted(counts, key=lambda name: (name.split("/")[0] != "rejected", -counts[name])):
        if "/" in name:
            rows.append((f"  {name.replace('/', ': ').replace('_', ' ')}", counts[name]))
    if "scored" in counts:
        rows += [
            ("  scored", counts["scored"]),
            ("    below the threshold", counts["scored"] - kept),
        ]
    rows.append(("    kept", kept))
    rows += note_rows(value.get("notes", {}))
    lines = [table(rows, total=samples)]
    if value["threshold"] is not None:
        ties = f"; {value['at']:,} samples share it" if value["at"] > 1 else ""
        lines.append(f"threshold {value['threshold']:.6f} on {value['network']}{ties}")
    if (requested := value.get("requested") or 0) > kept:
        lines.append(
            f"warning: the rule requests {requested:,} samples, only {kept:,} have a score: all "
            "are kept"
        )
    if "not_found" in value:
        lines.append(f"{value['listed']:,} uids listed, {value['not_found']:,} not in the pool")
    for shard, (fault, detail) in list(value.get("faults", {}).items())[:10]:
        why = f"{fault}{f' ({detail})' if detail else ''}"
        lines.append(printable_line(f"bad shard {shard}: {why}"))
    if value.get("repeated_uids"):
        lines.append(
            f"{value['repeated_uids']:,} kept samples have the same uid as another kept sample"
        )
    lines.append(
        f"subset: {run_uri}/subset" if value["state"] == State.FINAL else f"selection: {run_uri}"
    )
    return "\n".join(lines)
