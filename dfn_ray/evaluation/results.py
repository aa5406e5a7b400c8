"""Results on storage: a file per set in CLIP_benchmark's format, and DataComp's lines for all sets.

    RUN_URI/eval/{dataset}_{pretrained}_{model}_{language}_{task}.json
    RUN_URI/eval_results.jsonl
    RUN_URI/eval_attempts/*.json       one per driver that wrote results: its recipe and versions

The JSON is CLIP_benchmark's with an additional key `dfn_ray`, which CLIP_benchmark's tools
preserve: the version of its format, the numbers of images read, failed and rejected, faults of
shards, and the fingerprint of everything that affects the metrics, by which a result is recognized.
A metric that does not exist (acc5 of four classes) is null; CLIP_benchmark's own files contain NaN,
which is not valid JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dfn_ray.config import EvaluationSet, Network
from dfn_ray.console.printable import printable_line
from dfn_ray.console.tables import grid
from dfn_ray.errors import DamagedRunError
from dfn_ray.evaluation.datacomp import MEAN_RECALL, TASKS, GroupAverage, key_of
from dfn_ray.network.small_files import network_folder
from dfn_ray.pool.error_limits import by_reason
from dfn_ray.run import Attempt, create_attempt, invalid_fields, versions
from dfn_ray.storage import Store
from dfn_ray.untrusted.json_text import MAX_OWN_DEPTH, parse_json

FOLDER = "eval"
LINES = "eval_results.jsonl"
ATTEMPTS = "eval_attempts"
FORMAT_VERSION = 1
"""Version of the key `dfn_ray`."""


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """The result of a network on a set."""

    dataset: str
    task: str
    language: str
    metrics: Mapping[str, float]
    """0 to 1; NaN if undefined."""
    images: int
    """Number of images in the metrics."""
    failed: Mapping[str, int]
    """Images that failed, by reason; they count neither as right nor as wrong."""
    fingerprint: str
    """Digest of network, pool listing, classes, decoding and device: of all that affects
    metrics."""
    network: str
    """Digest of the network alone."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Images that were rejected, by reason."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Images by `Note`: truncated but scored, for instance."""
    shards: int = 0
    """Number of shards in the set."""
    shard_faults: Mapping[str, str] = field(default_factory=dict)
    """Faults of shards that are not essential, by URI: class folders without images."""

    @property
    def read(self) -> int:
        """Number of images read: those in the metrics, failed and rejected."""
        return self.images + sum(self.failed.values()) + sum(self.rejected.values())

    @property
    def key(self) -> str:
        """DataComp's key, or the name of any other set."""
        return key_of(self.dataset)

    @property
    def main_metric(self) -> tuple[str, float | None]:
        """Name and value of the main metric of the set; the value is None if it is not computed."""
        usual = "acc1" if self.task == "zeroshot_classification" else MEAN_RECALL
        name = TASKS[self.key].main_metric if self.key in TASKS else usual
        return name, _finite(self.datacomp_metrics).get(name)

    @property
    def datacomp_metrics(self) -> dict[str, float]:
        """The metrics, with DataComp's mean of the recalls at 1 if both exist."""
        both = [self.metrics.get(f"{side}_retrieval_recall@1") for side in ("text", "image")]
        if both[0] is None or both[1] is None:
            return dict(self.metrics)
        return {**self.metrics, MEAN_RECALL: 0.5 * (both[0] + both[1])}


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of one network in a run.

    A driver that writes holds the run's evaluations by an attempt in eval_attempts/, so that a
    driver that was replaced cannot overwrite newer results.
    """

    run_uri: str
    spec: Network
    network: str
    """Digest of the network."""
    recipe: Mapping[str, Any]
    """The resolved recipe of the driver that writes, see `recipe_values`."""
    attempt: Attempt | None = None
    """The attempt that holds the evaluations; None: each write takes them over first."""

    def take_over(self) -> Results:
        """Takes the evaluations over from any other driver; returns a copy with the attempt."""
        record = {"versions": versions(), "network": self.network, "recipe": self.recipe}
        return replace(self, attempt=create_attempt(self.store, record, ATTEMPTS))

    @property
    def store(self) -> Store:
        """The store of the run's files."""
        return Store(self.run_uri)

    def read(self, item: EvaluationSet) -> SetResult | None:
        """Returns the stored result of a set, of any driver and recipe; None if there is none."""
        name = self._file(item)
        if not self.store.exists(name):
            return None
        return self._read(name)

    def _read(self, name: str) -> SetResult | None:
        try:
            return _from_json(parse_json(self.store.read(name).decode(), max_depth=MAX_OWN_DEPTH))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedRunError(
                f"{self.store.uri_of(name)}: is damaged ({type(error).__name__}: {error}). Delete "
                "it and evaluate again"
            ) from None

    def write(self, item: EvaluationSet, result: SetResult) -> None:
        """Stores the result of a set, and replaces an earlier one."""
        value = {
            "dataset": result.dataset,
            "model": self.spec.model,
            "pretrained": _pretrained(self.spec),
            "task": result.task,
            "metrics": _finite(result.metrics),
            "language": result.language,
            "dfn_ray": {
                "format": FORMAT_VERSION,
                "read": result.read,
                "images": result.images,
                "failed": dict(result.failed),
                "rejected": dict(result.rejected),
                "notes": dict(result.notes),
                "shards": result.shards,
                "shard_faults": dict(result.shard_faults),
                "fingerprint": result.fingerprint,
                "network": result.network,
            },
        }
        self._replace(self._file(item), json.dumps(value).encode())

    def write_lines(self) -> tuple[SetResult, ...]:
        """Rewrites `eval_results.jsonl` from this network's stored results; returns them."""
        stored = [
            self._read(f"{FOLDER}/{file.name}") for file in self.store.list(FOLDER, suffix=".json")
        ]
        results = tuple(result for result in stored if result and result.network == self.network)
        lines = [json.dumps(_line(result)) + "\n" for result in results]
        data = "".join(lines).encode()
        if not self.store.exists(LINES) or self.store.read(LINES) != data:
            self._replace(LINES, data)
        return results

    def _replace(self, name: str, data: bytes) -> None:
        """Replaces a file. Raises RunTakenOverError if another driver has taken the run over."""
        attempt = self.attempt or self.take_over().attempt
        assert attempt is not None
        attempt.rewrite(self.store, name, data)

    def _file(self, item: EvaluationSet) -> str:
        parts = (item.name, _pretrained(self.spec), _model(self.spec), item.language, item.task)
        return f"{FOLDER}/{'_'.join(_slug(part) for part in parts)}.json"


def results_table(results: tuple[SetResult, ...], groups: Mapping[str, GroupAverage]) -> str:
    """Returns the results and the averages of DataComp's groups as text."""
    rows = [
        (
            result.dataset,
            result.task,
            name,
            "none" if value is None else f"{value:.4f}",
            f"{result.images:,}",
            f"{sum(result.failed.values()):,}",
        )
        for result in results
        for name, value in (result.main_metric,)
    ]
    shown = grid(("set", "task", "main metric", "", "images", "failed"), rows, numbers=3)
    shown += "".join(f"\n{line}" for result in results for line in _remarks(result))
    averages = [
        (name, f"{group.mean:.4f}", f"{group.available} of {group.tasks} sets")
        for name, group in groups.items()
    ]
    return shown + (
        "\n\n" + grid(("DataComp", "mean", "over"), averages, numbers=1) if averages else ""
    )


def _remarks(result: SetResult) -> list[str]:
    """Remarks on the images and shards of a set."""
    remarks = [
        f"{result.dataset}: {what} {by_reason(counts)}"
        for what, counts in (("rejected", result.rejected), ("noted", result.notes))
        if counts
    ]
    remarks += [f"{result.dataset}: {uri}: {why}" for uri, why in result.shard_faults.items()]
    return [printable_line(remark) for remark in remarks]


def _line(result: SetResult) -> dict[str, Any]:
    task = TASKS.get(result.key)
    metrics = _finite(result.datacomp_metrics) | {"main_metric": result.main_metric[1]}
    return {
        "key": result.key,
        "dataset": task.name if task else result.dataset,
        "metrics": metrics,
    }


def _from_json(value: Mapping[str, Any]) -> SetResult | None:
    """The result in a file; None for files that CLIP_benchmark itself wrote."""
    details = value.get("dfn_ray")
    if not details:
        return None
    metrics = {k: math.nan if v is None else v for k, v in value["metrics"].items()}
    own = {name: value[name] for name in ("dataset", "task", "language")}
    found = {**details, **own, "metrics": metrics}
    found.pop("read", None)
    if (version := found.pop("format")) != FORMAT_VERSION:
        raise ValueError(f"format {version!r}, this version reads {FORMAT_VERSION}")
    if wrong := invalid_fields(SetResult, found):
        raise ValueError(f"no {', '.join(wrong)} of the right type")
    return SetResult(**found)


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _pretrained(spec: Network) -> str:
    """CLIP_benchmark's `pretrained`: a tag, a checkpoint's file name, or empty for own weights."""
    if spec.random_weights_seed is not None:
        return f"random{spec.random_weights_seed}"
    return (spec.pretrained or "").rsplit("/", 1)[-1]


def _model(spec: Network) -> str:
    """The model in file names: for a folder, its last two parts (`RUN/network`)."""
    folder = network_folder(spec.model)
    return spec.model if folder is None else "_".join(folder.rstrip("/").split("/")[-2:])


def _slug(text: str) -> str:
    return re.sub(r"[^\w.@+-]+", "_", text)
