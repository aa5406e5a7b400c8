"""Bundles in Ray's sense: the resources and labels that one task or actor requires of its node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from dfn_ray.config import Decode, Scorers, Workers

_SLACK = 1e-6
"""Tolerance for sums of fractions such as 0.1 + 0.2."""


@dataclass(frozen=True)
class Bundle:
    """Resources and labels that one task or actor requires of its node."""

    resources: Mapping[str, float]
    """Amounts by Ray's names, CPU and GPU among them; an amount of 0 requires nothing."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}" for name, amount in self.resources.items() if amount]
        parts += [f"label {name} = {value}" for name, value in self.labels.items()]
        return ", ".join(parts) or "nothing"

    def ray_options(self) -> dict[str, Any]:
        """The bundle as options of Ray's `remote` and of Ray Data."""
        amounts = {name: amount for name, amount in self.resources.items() if amount}
        options: dict[str, Any] = {
            "num_cpus": amounts.pop("CPU", 0),
            "num_gpus": amounts.pop("GPU", 0),
        }
        if amounts:
            options["resources"] = amounts
        if self.labels:
            options["label_selector"] = dict(self.labels)
        return options

    def room_on(self, resources: Mapping[str, float], labels: Mapping[str, str]) -> float:
        """Number of bundles that fit on a node; infinite for a bundle that requires nothing."""
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return 0
        return min(
            (
                (resources.get(name, 0.0) + _SLACK) // amount
                for name, amount in self.resources.items()
                if amount
            ),
            default=inf,
        )


def decode_bundle(decode: Decode) -> Bundle:
    """The bundle of a task that reads and decodes."""
    return Bundle({"CPU": decode.cpus, **decode.resources}, decode.labels)


def scorer_bundle(scorers: Scorers) -> Bundle:
    """The bundle of a scorer."""
    return Bundle({"GPU": scorers.gpus, "CPU": scorers.cpus, **scorers.resources}, scorers.labels)


def worker_bundle(workers: Workers) -> Bundle:
    """The bundle of a training worker."""
    device = {"GPU": 1} if workers.device == "cuda" else {}
    return Bundle({**device, "CPU": workers.cpus, **workers.resources}, workers.labels)
