"""The table of a fuzzer run, with its failures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from tests.fuzz.worker import Result

_MAX_REASONS = 9


class Report:
    """Results by target."""

    def __init__(self) -> None:
        self._by_target: defaultdict[str, list[Result]] = defaultdict(list)
        self._failed: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)

    def add(self, result: Result) -> None:
        """Adds a result."""
        slim = Result(
            index=result.index,
            target=result.target,
            valid=result.valid,
            cpu_s=result.cpu_s,
            growth_bytes=result.growth_bytes,
            outcomes=result.outcomes,
            failure=result.failure,
            detail=result.detail,
        )
        self._by_target[result.target].append(slim)
        if result.failure is not None:
            self._failed[result.target, result.failure].append(result)

    @property
    def inputs(self) -> int:
        """Number of inputs that have a result."""
        return sum(map(len, self._by_target.values()))

    @property
    def failures(self) -> int:
        """Number of inputs that failed."""
        return sum(map(len, self._failed.values()))

    def lines(self, seed: int) -> Iterable[str]:
        """The report as text."""
        yield (
            f"{'target':<10} {'inputs':>6} {'valid':>6} {'damaged':>7} {'failed':>6} "
            f"{'slowest':>8} {'most':>8}  outcomes"
        )
        for target in sorted(self._by_target):
            yield _line(target, self._by_target[target])
        yield _line("all", [result for every in self._by_target.values() for result in every])
        for (target, failure), results in sorted(
            self._failed.items(), key=lambda item: -len(item[1])
        ):
            first = min(results, key=lambda result: result.index)
            last_words = first.detail.strip().splitlines()[-1:] or [""]
            yield f"FAILED {len(results):>4}  {target}: {failure}"
            yield f"       {last_words[0][:300]}"
            yield f"       {first.note[:200]!r}"
            yield f"       python -m tests.fuzz --seed {seed} --only {first.index}"


def _line(name: str, results: list[Result]) -> str:
    outcomes = sum((result.outcomes for result in results), Counter[str]())
    shown = ", ".join(f"{reason} {count}" for reason, count in outcomes.most_common(_MAX_REASONS))
    more = len(outcomes) - _MAX_REASONS
    valid = sum(result.valid for result in results)
    return (
        f"{name:<10} {len(results):>6} {valid:>6} {len(results) - valid:>7} "
        f"{sum(result.failure is not None for result in results):>6} "
        f"{max(result.cpu_s for result in results):>6.2f} s "
        f"{max(result.growth_bytes for result in results) >> 20:>4} MiB  {shown}"
        f"{f', {more} more' if more > 0 else ''}"
    )
