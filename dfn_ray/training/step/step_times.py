"""Times of a worker's steps, and their records since the last checkpoint."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dfn_ray.training.chain import Batch
from dfn_ray.training.data.feed import COUNTED
from dfn_ray.training.data.seen import merge_spans


class StepTimes:
    """Measures steps and keeps their places, counts and lines until the next checkpoint."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._losses: list[Tensor] = []
        self._samples = 0
        self._waited_s = 0.0
        self._since = self._waiting_since = time.monotonic()
        self._places: list[np.ndarray] = []
        self._counts = np.zeros(len(COUNTED), dtype=np.int64)
        self._lines: list[dict[str, Any]] = []

    @property
    def has_uncommitted(self) -> bool:
        """True when a step was taken since the last checkpoint."""
        return bool(self._places)

    def wait(self) -> None:
        """Marks the start of waiting for data."""
        self._waiting_since = time.monotonic()

    def go(self, batch: Batch) -> None:
        """Marks the arrival of a batch, and records its places and counts."""
        self._waited_s += time.monotonic() - self._waiting_since
        self._samples += len(batch["text"])
        self._places.append(merge_spans(batch["place"].numpy()))
        self._counts += batch["counts"].numpy().sum(axis=0)

    def done(self, loss: Tensor) -> None:
        """Marks the end of a step."""
        self._losses.append(loss)

    def line(self, **figures: Any) -> dict[str, Any]:
        """Returns the figures since the last line, over all workers; every worker must call it."""
        mean = torch.stack(self._losses).float().mean()
        if self._world > 1:
            dist.all_reduce(mean)
            mean /= self._world
        loss = float(mean)  # waits for the device, so that pending work is timed
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        rate = self._samples / seconds
        line = {
            "samples_seen": figures.pop("samples_seen"),
            "steps": figures.pop("steps"),
            "loss": loss,
            **figures,
            "samples_per_s": rate * self._world,
            "samples_per_s_per_worker": rate,
            "data_wait": self._waited_s / seconds,
            "workers": self._world,
        }
        self._lines.append(line)
        self._losses, self._samples, self._waited_s, self._since = [], 0, 0.0, now
        return line

    def take_lines(self) -> list[dict[str, Any]]:
        """Removes and returns the lines since the last checkpoint."""
        lines, self._lines = self._lines, []
        return lines

    def take_places(self, closed: int) -> tuple[np.ndarray, int, np.ndarray]:
        """Removes and returns what was seen since the last checkpoint.

        Returns the spans (N, 3), the group read last (`closed` if none), and the sums of `counts`.
        """
        spans = merge_spans(np.concatenate([np.empty((0, 3), np.int64), *self._places]))
        counts, self._places = self._counts, []
        self._counts = np.zeros_like(counts)
        return spans, int(spans[-1, 0]) if len(spans) else closed, counts
