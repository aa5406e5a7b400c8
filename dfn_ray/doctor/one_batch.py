"""One batch of the recipe's shape on the scorer's device, halved until it fits."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from dfn_ray.config import Recipe, Scorers
from dfn_ray.console.tables import size
from dfn_ray.dry_run.finding import Finding, change
from dfn_ray.network.packed import PackedNetwork, build
from dfn_ray.network.tokenizer import tokenize
from dfn_ray.on_ray.bundles import scorer_bundle
from dfn_ray.on_ray.nodes import Node, result_or_error, run_on_node
from dfn_ray.on_ray.session import put_networks
from dfn_ray.resolving.embedding_fingerprint import with_fixed_threads

START_S = 300.0
"""Limit on waiting for a device and building the networks; longer means that others hold the
devices."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Messages of torch on a CPU, where it has no exception class for this."""


@dataclass(frozen=True, kw_only=True)
class BatchTrial:
    """The result of trying a batch on a device."""

    device: str
    fits: int
    """Samples in the largest batch that fits, by halving; 0 if not even the networks fit."""
    used_bytes: int
    """Peak memory of the process on the device; on a CPU, its peak resident size."""
    free_bytes: int
    """Memory left at the end."""
    total_bytes: int


def try_batch(networks: Sequence[PackedNetwork], scorers: Scorers, samples: int) -> BatchTrial:
    """Scores `samples` random images and full-length captions, halving the batch until it fits.

    Raises torch's RuntimeError if the device cannot be used at all.
    """
    fits = 0
    try:
        # One after another, all of them staying on the device, as in the scorer.
        built = [build(network, scorers.device, threads=scorers.threads) for network in networks]
        fits = samples
        while fits and not all(
            _fits(network, packed, fits) for network, packed in zip(built, networks, strict=True)
        ):
            fits //= 2
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    return _measured(scorers.device, fits)


def device_findings(
    recipe: Recipe, networks: Sequence[PackedNetwork], nodes: Sequence[Node]
) -> list[Finding]:
    """A finding for each type of node that can hold a scorer."""
    scorers = with_fixed_threads(recipe.scorers)
    bundle = scorer_bundle(recipe.scorers)
    able = [
        node
        for node in nodes
        if bundle.room_on(node.resources, node.labels)
        and (scorers.gpus or node.resources.get("CPU"))
    ]
    if not able:
        return [
            change(
                "device",
                f"no node has {bundle} now, so no batch could be tried. Start such a node and run "
                "doctor again",
            )
        ]
    samples = min(scorers.batch_size, recipe.pool.chunk_rows)
    options = {**bundle.ray_options(), "label_selector": {}}  # the node is fixed already
    shared = put_networks(networks)
    kinds = {node.kind: node for node in reversed(able)}
    started = {
        kind: run_on_node(node, _trial, [shared], scorers, samples, **options)
        for kind, node in kinds.items()
    }
    return [
        _finding(scorers, samples, kind, result_or_error(ref, START_S))
        for kind, ref in started.items()
    ]


def _trial(shared: list[ray.ObjectRef], scorers: Scorers, samples: int) -> BatchTrial | str:
    if scorers.device == "cuda" and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} finds no CUDA device. Check that it is a CUDA build and "
            "that the NVIDIA driver is recent enough"
        )
    return try_batch(ray.get(shared[0]), scorers, samples)


def _finding(scorers: Scorers, samples: int, kind: str, trial: BatchTrial | str) -> Finding:
    if isinstance(trial, str):
        return change("device", f"{scorers.device} on a node of {kind}: {trial}")
    text = f"{trial.device}, node of {kind}: "
    if trial.fits < samples:
        largest = (
            f"halved until it fits, a batch of {trial.fits} is possible. Set scorers.batch_size = "
            f"{trial.fits}"
            if trial.fits
            else 'not even the networks fit. Use a device with more memory, or precision = "bf16"'
        )
        return change("device", f"{text}a batch of {samples} runs out of memory; {largest}")
    text += (
        f"a batch of {samples} takes {size(trial.used_bytes)}, {size(trial.free_bytes)} of "
        f"{size(trial.total_bytes)} left"
    )
    sharing = int(1 / scorers.gpus) if 0 < scorers.gpus < 1 else 1
    if sharing * trial.used_bytes > trial.total_bytes:
        return change(
            "device",
            f"{text}; at scorers.gpus = {scorers.gpus:g}, {sharing} scorers share the device and "
            "run out of memory. Raise scorers.gpus or lower scorers.batch_size",
        )
    return Finding("device", text)


def _fits(network: Any, packed: PackedNetwork, samples: int) -> bool:
    height, width = packed.transform.size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (samples, height, width, 3), dtype=np.uint8)
    captions = [f"{n} {'of many words ' * 128}" for n in range(samples)]
    try:
        network.score(pixels, tokenize(packed.tokenizer, captions), batch_size=samples)
        if network.device.type == "cuda":
            torch.cuda.synchronize()
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if network.device.type == "cuda":
            torch.cuda.empty_cache()
        return False
    return True


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in _NO_MEMORY
    )


def _measured(device: str, fits: int) -> BatchTrial:
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        used = torch.cuda.max_memory_reserved()
        name = torch.cuda.get_device_name()
    else:
        free, total = _memory("MemAvailable"), _memory("MemTotal")
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        name = f"cpu, {torch.get_num_threads()} threads"
    return BatchTrial(device=name, fits=fits, used_bytes=used, free_bytes=free, total_bytes=total)


def _memory(name: str) -> int:
    """A value of /proc/meminfo in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))
