"""The sections on the work itself: `[execution]`, its sizes and limits, and `[prices]`."""

from __future__ import annotations

from collections.abc import Iterator

from dfn_ray.config.checks import (
    Fraction,
    NonNegative,
    NonNegativeNumber,
    Positive,
    PositiveNumber,
    Text,
)
from dfn_ray.config.sections import require_rules, section


@section
class Execution:
    """`[execution]`: sizes of units of work, and limits. It changes no score and no selection."""

    chunks_per_part: Positive = 40
    """Chunks of `pool.chunk_rows` in one output part, >= 1; a part has chunks of one shard. By
    default a shard of 10,000 samples is one part. A crash loses at most the parts in progress, one
    for each worker."""
    rounds: Positive = 3
    """Number of rounds over the shards that are not finished, because their tasks died or their
    store failed, before they are given up, >= 1."""
    give_up_unreachable: bool = False
    """True: a shard that the store still does not return after all rounds is committed as
    `unreachable_shard` and counts against `max_bad_shard_fraction`. False: the run stops and lists
    such shards; running it again resumes."""
    accept_versions: bool = False
    """Permission to resume a run whose last attempt used other versions of torch, open_clip,
    pillow, simplejpeg, or another major version of numpy. Scores may then differ in their last
    digits; the attempt records its versions."""
    accept_changed_shards: bool = False
    """Permission to resume although the sizes of shards have changed since the run listed them;
    they are listed again. Chunks committed from complete shards stay as they are. A shard that is
    committed in part is still refused, because its rows would come from two versions of the
    shard."""
    max_failed_fraction: Fraction = 0.25
    """Error limit: the run stops when more than this fraction of the samples fails, 0 to 1."""
    max_rejected_fraction: Fraction = 0.99
    """Error limit: the run stops when the rules reject more than this fraction of the samples, 0 to
    1; 1 never stops it. A rule that rejects nearly everything is usually a mistake."""
    max_bad_shard_fraction: Fraction = 0.25
    """Error limit: the run stops when more than this fraction of the shards is bad, 0 to 1."""
    limits_after_samples: NonNegative = 10_000
    """Samples read before the error limits are first checked, >= 0; they are checked again at the
    end."""
    stall_timeout_s: PositiveNumber = 1800.0
    """Seconds without progress, although there are nodes, after which the remaining work is scored
    again, > 0. Must be longer than a chunk takes."""
    no_progress_timeout_s: PositiveNumber = 7200.0
    """Seconds without progress, while waiting for nodes such as spot GPUs, after which the run
    stops, > 0."""
    max_hours: PositiveNumber | None = None
    """Budget in hours, > 0: the run stops, and can be resumed, once scoring has taken this long in
    all attempts together. `--budget 2h` sets it."""


@section
class Prices:
    """`[prices]`: prices of cluster and storage, for `dfn-ray plan` and budgets.

    They change no result. A node's price is split between its GPUs and its CPU cores: for a node
    with 8 GPUs and 96 cores at 32 an hour, for example, `gpu_hour = 3.40` and `cpu_hour = 0.05`.
    """

    currency: Text = "USD"
    """Currency in printed tables."""
    gpu_hour: NonNegativeNumber = 0.0
    """Price of one GPU for an hour, >= 0."""
    cpu_hour: NonNegativeNumber = 0.0
    """Price of one CPU, as Ray counts them, for an hour, >= 0."""
    get_per_1000: NonNegativeNumber = 0.0
    """Price of 1,000 read requests (GET, HEAD) to the object store, >= 0."""
    put_per_1000: NonNegativeNumber = 0.0
    """Price of 1,000 write and list requests (PUT, LIST), >= 0."""
    gb_read: NonNegativeNumber = 0.0
    """Price of reading 10^9 bytes of the pool: transfer out of its region or cloud, >= 0."""
    gb_month: NonNegativeNumber = 0.0
    """Price of storing 10^9 bytes of output for a month, >= 0."""
    budget: PositiveNumber | None = None
    """Budget in `currency`, > 0: the run stops, and can be resumed, once its nodes have cost this
    much in all attempts together. `--budget 12.50` sets it."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        if self.budget is not None and self.gpu_hour == self.cpu_hour == 0:
            yield (
                "budget: needs gpu_hour or cpu_hour to compute costs, got 0 for both; "
                "to limit hours instead: --budget 2h"
            )
