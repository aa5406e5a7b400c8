"""The result of a training run as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfn_ray.console.printable import printable_line
from dfn_ray.console.tables import table
from dfn_ray.pool.error_limits import by_reason


def result_lines(value: Mapping[str, Any]) -> list[str]:
    """Returns `result.json` as text: progress, samples read by source, failures in training."""
    rows: list[tuple[str, int | str]] = [
        ("samples seen", value["samples_seen"]),
        ("steps", value["steps"]),
        ("failed", sum(value["failed"].values())),
        *((f"  {reason}", count) for reason, count in value["failed"].items()),
        *(value["notes"].items()),
        ("network", value["network"]),
    ]
    lines = [table([(name.replace("_", " "), shown) for name, shown in rows])]
    for source in value["sources"]:
        counts = [f"{source['samples']:,} samples read", f"{source['usable']:,} usable"]
        counts += [
            f"{name} {by_reason(source[key])}"
            for name, key in (("failed", "failed"), ("rejected", "rejected"), ("noted", "notes"))
            if source[key]
        ]
        counts.append(f"{source['bad_shards']:,} of {source['shards']:,} shards bad")
        lines.append(printable_line(f"source {source['name']}: {'; '.join(counts)}"))
        lines += [
            printable_line(f"bad shard {uri}: {why}") for uri, why in source["faults"].items()
        ]
    return lines
