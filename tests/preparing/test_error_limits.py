"""The limits on failed samples and bad shards, at their boundaries."""

from __future__ import annotations

import pytest

from dfn_ray.errors import ErrorLimitExceededError
from dfn_ray.preparing.error_limits import ErrorLimits, failures, rejections
from dfn_ray.schema import ShardFault

LIMITS = ErrorLimits(max_failed_fraction=0.25, max_bad_shard_fraction=0.25, section="execution.")


def test_as_many_as_allowed_pass_and_one_more_stops():
    def counts(failed):
        return {
            "scored": 100 - failed - 20, "rejected/image_side": 20,
            "failed/empty_image": 5, "failed/not_an_image": failed - 5,
        }  # fmt: skip

    LIMITS.check_samples(counts(25))
    message = (
        r"pool: 26 of 100 samples failed \(not_an_image 21, empty_image 5\); "
        r"execution\.max_failed_fraction allows 25%"
    )
    with pytest.raises(ErrorLimitExceededError, match=message):
        LIMITS.check_samples(counts(26), where="pool: ")
    faults = {f"s{n}.tar": (ShardFault.MISSING, "") for n in range(3)}
    LIMITS.check_shards(faults, 12)
    message = r"3 of 11 shards are bad, e\.g\. s0\.tar: missing_shard; execution\.max_bad_shard"
    with pytest.raises(ErrorLimitExceededError, match=message):
        LIMITS.check_shards(faults, 11)
    LIMITS.check_samples({})
    LIMITS.check_shards({}, 0)


def test_failed_and_left_out_samples_are_told_apart():
    counts = {"scored": 1, "failed/empty_image": 1, "failed/bad_uid": 2, "rejected/not_listed": 3}
    assert failures(counts) == {"bad_uid": 2, "empty_image": 1}
    assert rejections(counts) == {"not_listed": 3}
