"""The cost of a run so far, and the stop of the run when its budget is spent.

Counted are the CPUs and GPUs of all alive nodes of the cluster, busy or not, by Ray's own numbers
(a head that offers 0 CPUs counts nothing), from the connection of the first attempt to the end of
scoring. Not counted are requests, transfer and storage, the start of nodes before they join, and
selecting and settling at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from ray.exceptions import RayError

from dfn_ray.config import Prices, Recipe
from dfn_ray.console.tables import duration
from dfn_ray.errors import BudgetSpentError, RunTakenOverError, StorageError
from dfn_ray.on_ray.nodes import cluster_resources
from dfn_ray.run import SPENDING, Run

CHECK_INTERVAL_S = 5.0
"""Time between checks of the alive nodes."""
STORE_INTERVAL_S = 60.0
MIN_WAIT_S = 60.0
"""Lower limit of the no-progress timeout: with less, a small budget would be spent on restarting
actors."""


@dataclass(frozen=True)
class Spent:
    """Resources used; can be summed over attempts."""

    hours: float = 0.0
    """Wall-clock time of scoring."""
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, name) + getattr(other, name) for name in asdict(self)))

    def plus(self, seconds: float, alive: Mapping[str, float]) -> Spent:
        """This plus `seconds` with those resources alive."""
        hours = seconds / 3600
        cpu_hours, gpu_hours = (hours * alive.get(name, 0.0) for name in ("CPU", "GPU"))
        return self + Spent(hours, cpu_hours, gpu_hours)

    def cost(self, prices: Prices) -> float:
        """The cost at these prices, also of attempts made before the prices were set."""
        return self.cpu_hours * prices.cpu_hour + self.gpu_hours * prices.gpu_hour


def spent_before(run: Run) -> Spent:
    """The stored resource use of all attempts of a run together."""
    total = Spent()
    for file in run.store.list(SPENDING, suffix=".json"):
        value = run.read_json(f"{SPENDING}/{file.name}")
        total += Spent(**value) if value else Spent()
    return total


class CostMeter:
    """Context that measures the cost of this attempt. Owns the thread that polls the cluster."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        *,
        alive: Callable[[], Mapping[str, float]] = cluster_resources,
    ) -> None:
        self._limits, self._prices, self._run, self._alive = (
            recipe.execution, recipe.prices, run, alive,
        )  # fmt: skip
        self._before = spent_before(run)
        self._spent, self._now_alive = Spent(), {}
        self._looked = self._stored = time.monotonic()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="spending", daemon=True)

    def __enter__(self) -> Self:
        self._now_alive = self._alive()
        self._looked = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()
        self._store(final=error is None)

    @property
    def spent(self) -> Spent:
        """The resource use of all attempts up to now."""
        with self._lock:
            since = time.monotonic() - self._looked if self._thread.is_alive() else 0.0
            return self._before + self._spent.plus(since, self._now_alive)

    def check(self, done_fraction: float) -> None:
        """Raises BudgetSpentError when the budget is spent; `done_fraction` is for the message."""
        spent = self.spent
        budget, hours = self._prices and self._prices.budget, self._limits.max_hours
        if budget is not None and self._prices and spent.cost(self._prices) >= budget:
            currency = self._prices.currency
            what = (
                f"{spent.cost(self._prices):,.2f} of {budget:,.2f} {currency} "
                f"({spent.gpu_hours:,.2f} GPU-hours, {spent.cpu_hours:,.2f} CPU-hours)"
            )
        elif hours is not None and spent.hours >= hours:
            what = f"{duration(spent.hours * 3600)} of {duration(hours * 3600)}"
        else:
            return
        raise BudgetSpentError(
            f"{self._run.store.uri}: the budget is spent, {what}; {done_fraction:.1%} of the pool "
            "is scored and committed. Run the same command with a larger --budget to resume"
        )

    def limited_wait(self, wait_s: float) -> float:
        """The wait in seconds, shortened to what the budget allows at the current cost per hour."""
        left_s = wait_s
        spent = self.spent
        if self._limits.max_hours is not None:
            left_s = min(left_s, (self._limits.max_hours - spent.hours) * 3600)
        if self._prices and self._prices.budget is not None:
            with self._lock:
                hourly = Spent().plus(3600, self._now_alive).cost(self._prices)
            if hourly > 0:
                left = self._prices.budget - spent.cost(self._prices)
                left_s = min(left_s, left / hourly * 3600)
        return min(wait_s, max(MIN_WAIT_S, left_s))

    def _watch(self) -> None:
        while not self._end.wait(CHECK_INTERVAL_S):
            self._look()
            if time.monotonic() - self._stored >= STORE_INTERVAL_S:
                self._store()

    def _look(self) -> None:
        """Adds the time since the last check at the resources alive then, and updates these."""
        try:
            alive = self._alive()
        except RayError:
            alive = self._now_alive  # the cluster does not answer: assume the same cost
        with self._lock:
            now = time.monotonic()
            self._spent = self._spent.plus(now - self._looked, self._now_alive)
            self._looked, self._now_alive = now, alive

    def _store(self, *, final: bool = False) -> None:
        """Stores the use of this attempt.

        A failed write is retried at the next interval, and raised if `final`.
        """
        self._stored = time.monotonic()
        try:
            name = f"{SPENDING}/{self._run.attempt.number:06d}.json"
            self._run.write_json(name, asdict(self._spent))
        except (StorageError, RunTakenOverError):
            if final:
                raise
