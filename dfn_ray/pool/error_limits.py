"""The limits on failed samples and bad shards, the same for every stage that reads a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfn_ray.errors import ErrorLimitExceededError
from dfn_ray.schema import ShardFault, Status

Faults = Mapping[str, tuple[ShardFault, str]]
"""URI of a bad shard -> its fault and a description."""


@dataclass(frozen=True, kw_only=True)
class ErrorLimits:
    """The shares of samples and shards that may be bad or rejected before a run stops."""

    max_failed_fraction: float
    max_bad_shard_fraction: float
    max_rejected_fraction: float = 1.0
    section: str = ""
    """Prefix of the settings in the recipe, with a dot: `execution.`."""

    def check_shards(self, faults: Faults, shards: int, *, where: str = "") -> None:
        """Raises ErrorLimitExceededError when too large a share of all `shards` is bad.

        The share is of all shards, not of those read so far: missing shards fail at once, so they
        would look like most of the pool.
        """
        if len(faults) <= self.max_bad_shard_fraction * shards:
            return
        raise ErrorLimitExceededError(
            f"{where}{len(faults):,} of {shards:,} shards are bad, e.g. {first_fault(faults)}; "
            f"{self.section}max_bad_shard_fraction allows {_percent(self.max_bad_shard_fraction)}. "
            "Restore or remove these shards, or raise the limit"
        )

    def check_samples(
        self, counts: Mapping[str, int], *, where: str = "", what: str = "samples"
    ) -> None:
        """Raises ErrorLimitExceededError when too large a share of samples failed or was rejected.

        `counts` are by `status` or `status/reason`.
        """
        samples = sum(counts.values())
        for found, what_happened, setting, advice in (
            (
                failures(counts),
                "failed",
                "max_failed_fraction",
                "Check the pool with `dfn-ray inspect`; if these failures are expected, raise the "
                "limit",
            ),
            (
                rejections(counts),
                "were rejected",
                "max_rejected_fraction",
                "Check the recipe's rules; if so few samples are expected to pass, raise the limit",
            ),
        ):
            limit: float = getattr(self, setting)
            if sum(found.values()) > limit * samples:
                raise ErrorLimitExceededError(
                    f"{where}{sum(found.values()):,} of {samples:,} {what} {what_happened} "
                    f"({by_reason(found)}); {self.section}{setting} allows {_percent(limit)}. "
                    f"{advice}"
                )


def failures(counts: Mapping[str, int]) -> dict[str, int]:
    """Failed samples by reason, most frequent first, from counts by `status/reason`."""
    return _of_status(counts, Status.FAILED)


def rejections(counts: Mapping[str, int]) -> dict[str, int]:
    """Samples rejected by a rule or a list, by reason, as `failures`."""
    return _of_status(counts, Status.REJECTED)


def by_reason(counts: Mapping[str, int]) -> str:
    """Counts by name in one line: `not_an_image 12, empty_image 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def first_fault(faults: Faults) -> str:
    """The first of the bad shards, with its fault."""
    shard, (fault, detail) = next(iter(faults.items()))
    return f"{shard}: {fault}" + (f": {detail}" if detail else "")


def _of_status(counts: Mapping[str, int], status: Status) -> dict[str, int]:
    start = f"{status}/"
    found = {key[len(start) :]: n for key, n in counts.items() if key.startswith(start) and n > 0}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}".replace(".0%", "%")
