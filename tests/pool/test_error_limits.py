"""The limits on failed samples and bad shards, at their boundaries."""

from __future__ import annotations

import pytest

from dfn_ray.errors import ErrorLimitExceededError
from dfn_ray.pool.error_limits import ErrorLimits, failures, rejections
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


def test_rules_that_reject_nearly_everything_stop_the_run_unless_that_is_allowed():
    counts = {"scored": 1, "rejected/caption_words": 60, "rejected/image_side": 39}
    for limit, stops in ((0.98, True), (0.99, False), (1.0, False)):
        limits = ErrorLimits(
            max_failed_fraction=0, max_bad_shard_fraction=0, max_rejected_fraction=limit
        )
        if not stops:
            limits.check_samples(counts)
            continue
        message = (
            r"^99 of 100 samples were rejected \(caption_words 60, image_side 39\); "
            r"max_rejected_fraction allows 98%\. Check the recipe's rules"
        )
        with pytest.raises(ErrorLimitExceededError, match=message):
            limits.check_samples(counts)
    LIMITS.check_samples({"rejected/not_listed": 7})


def test_failed_and_left_out_samples_are_told_apart():
    counts = {"scored": 1, "failed/empty_image": 1, "failed/bad_uid": 2, "rejected/not_listed": 3}
    assert failures(counts) == {"bad_uid": 2, "empty_image": 1}
    assert rejections(counts) == {"not_listed": 3}
