"""The figures of a run as Ray metrics, which every node exports to Prometheus as `ray_dfn_ray_*`.

Commits are counted on the driver, once per part when it is added to the ledger, so a retry is not
counted twice: at the end of an undisturbed run the counters equal the run's own counts. A killed
driver loses up to 10 s of counts (Ray's export interval), and a resumed one counts only its own
commits; the gauges `done_*` come from the ledger and are correct again as soon as the run resumes.
The work of scorers is counted by each scorer, repeats included.

A call costs 4 us per series and is made per part or chunk, never per sample. cluster/METRICS.md
documents each metric.

Relies on these facts (Ray 2.60): values recorded before `ray.init` are lost; a driver or actor that
exits, or is stopped by Ray, exports its last values first; a gauge expires 20 s after it was last
set, even while its process lives.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from ray.util.metrics import Counter, Gauge

from dfn_ray.run import Ledger
from dfn_ray.schema import Chunk
from dfn_ray.storage import Store

SCORE_BOUNDARIES = tuple(round(-0.2 + 0.02 * step, 2) for step in range(41))
"""Upper bounds of the score buckets: -0.2 to 0.6, the range of CLIP's cosines; higher scores count
as `+Inf`."""
REPEAT_S = 5.0
"""Interval at which gauges are set again, four times before they would expire."""


def run_label(run_uri: str) -> str:
    """Value of the tag `run`: the last component of the URI and a digest of the whole URI."""
    address = Store(run_uri).address
    name = address.rstrip("/").rpartition("/")[2]
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:64]
    return f"{readable}-{hashlib.blake2b(address.encode(), digest_size=4).hexdigest()}"


def score_buckets(scores: np.ndarray) -> list[int]:
    """Cumulative counts of scores <= each of SCORE_BOUNDARIES, and the number of all scores."""
    below = np.searchsorted(np.sort(scores), SCORE_BOUNDARIES, side="right")
    return [*below.tolist(), len(scores)]


class PoolMetrics:
    """Counts of what a driver has committed of a pool.

    Its gauges are exported until it is closed.
    """

    def __init__(
        self, run_uri: str, *, shards: int, total_bytes: int, network: str | None = None
    ) -> None:
        self._run = {"run": run_label(run_uri)}
        self._network = network
        self._samples = _counter("samples", "Samples committed", "status", "reason")
        self._read_bytes = _counter("read_bytes", "Bytes of the pool that committed chunks cover")
        self._chunks = _counter("chunks", "Chunks committed")
        self._parts = _counter("parts", "Parts committed")
        self._bad_shards = _counter("bad_shards", "Shards that gave fewer samples", "fault")
        self._notes = _counter("notes", "Samples handled in an unusual way", "note")
        self._scores = _counter("scores", "Scores committed that are at most le", "network", "le")
        self._gauges = _Gauges(
            self._run,
            pool_shards="Shards of the pool",
            pool_bytes="Bytes of the pool",
            done_shards="Shards complete",
            done_bytes="Bytes of the pool committed by all attempts",
            done_samples="Samples committed by all attempts",
            last_commit_timestamp_s="Unix time of the last commit, or of the driver's start",
        )
        self._gauges.set(pool_shards=shards, pool_bytes=total_bytes)

    def resume(self, ledger: Ledger) -> None:
        """Sets the gauges to what all attempts have committed."""
        self._gauges.set(
            done_shards=ledger.complete_shards,
            done_bytes=ledger.bytes_read,
            done_samples=sum(ledger.counts.values()),
            last_commit_timestamp_s=time.time(),
        )

    def add(
        self,
        chunks: Sequence[Chunk],
        counts: Mapping[str, int],
        buckets: Sequence[int],
        ledger: Ledger,
    ) -> None:
        """Counts a part just added to the ledger; `buckets` is from `score_buckets`, or empty."""
        for key, count in counts.items():
            status, _, reason = key.partition("/")
            _count(self._samples, count, self._run | {"status": status, "reason": reason})
        _count(self._read_bytes, sum(chunk.bytes_read for chunk in chunks), self._run)
        _count(self._chunks, len(chunks), self._run)
        _count(self._parts, 1, self._run)
        for chunk in chunks:
            if chunk.fault is not None:
                _count(self._bad_shards, 1, self._run | {"fault": chunk.fault.value})
            for note, count in chunk.notes.items():
                _count(self._notes, count, self._run | {"note": str(note)})
        if buckets and self._network is not None:
            tags = self._run | {"network": self._network}
            for end, count in zip((*SCORE_BOUNDARIES, float("inf")), buckets, strict=True):
                _count(self._scores, count, tags | {"le": _le(end)})
        self.resume(ledger)

    def close(self) -> None:
        """Lets the gauges expire: nothing works on the run any more."""
        self._gauges.close()


class ScorerMetrics:
    """Counters of one scorer's own work."""

    def __init__(self, run: str) -> None:
        self._run = {"run": run}
        self._forward_s = _counter("forward_s", "Seconds in the forward", "network")
        self._forward_samples = _counter("forward_samples", "Samples forwarded", "network")
        self._gauges = _Gauges(self._run, scorers="1 for each scorer alive")
        self._gauges.set(scorers=1)

    @contextmanager
    def forward(self, network: str, samples: int) -> Iterator[None]:
        """Times a forward pass over that many samples."""
        began = time.monotonic()
        yield
        tags = self._run | {"network": network}
        _count(self._forward_s, time.monotonic() - began, tags)
        _count(self._forward_samples, samples, tags)


class TrainingMetrics:
    """The state of a training run, reported by its workers to the driver; exported until closed."""

    def __init__(self, run_uri: str, *, total_samples: int) -> None:
        self._gauges = _Gauges(
            {"run": run_label(run_uri)},
            train_total_samples="Samples to be seen",
            train_samples_seen="Samples seen, repeats counted",
            train_samples_per_s="Samples seen a second by all workers",
            train_loss="Mean loss since the last report",
            train_logit_scale="exp of the learned scale of the logits",
            train_learning_rate="Learning rate",
            train_data_wait_fraction="Share of a worker's time without data",
            train_workers="Workers in the group",
        )
        self._gauges.set(train_total_samples=total_samples)

    def show(self, figures: Mapping[str, float]) -> None:
        """Sets the latest figures (`training.worker`)."""
        self._gauges.set(
            train_samples_seen=figures["samples_seen"],
            train_samples_per_s=figures["samples_per_s"],
            train_loss=figures["loss"],
            train_logit_scale=figures["logit_scale"],
            train_learning_rate=figures["learning_rate"],
            train_data_wait_fraction=figures["data_wait"],
            train_workers=figures["workers"],
        )

    def close(self) -> None:
        """Lets the gauges expire: training has ended."""
        self._gauges.close()


class _Gauges:
    """Gauges whose last values are set repeatedly until they are closed or the process ends."""

    def __init__(self, tags: Mapping[str, str], **descriptions: str) -> None:
        self._tags = dict(tags)
        self._gauges = {
            name: Gauge(f"dfn_ray_{name}", description, tuple(tags))
            for name, description in descriptions.items()
        }
        self._values: dict[str, float] = {}
        # Without a lock an old value might be exported after a new one, and be the last.
        self._exporting = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def set(self, **values: float) -> None:
        with self._exporting:
            self._values |= values
            self._export()

    def close(self) -> None:
        self._closed.set()

    def _repeat(self) -> None:
        while not self._closed.wait(REPEAT_S):
            with self._exporting:
                self._export()

    def _export(self) -> None:
        for name, value in self._values.items():
            self._gauges[name].set(value, self._tags)


def _counter(name: str, description: str, *tags: str) -> Counter:
    return Counter(f"dfn_ray_{name}", description, ("run", *tags))


def _count(counter: Counter, value: float, tags: dict[str, str]) -> None:
    if value > 0:  # Ray rejects an increment of 0
        counter.inc(value, tags)


def _le(end: float) -> str:
    """A bucket's bound as Prometheus spells it.

    Its histogram functions accept any counter with such a tag.
    """
    return "+Inf" if end == float("inf") else f"{end:g}"
