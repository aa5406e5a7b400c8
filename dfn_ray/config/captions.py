"""The section on scoring pairs with several captions."""

from __future__ import annotations

from typing import Literal

from dfn_ray.config.sections import section


@section
class Captions:
    """`[captions]`: the score of an image with several captions.

    It has an effect only if `pool.caption` is `lines` or `list`. `[rules]` check every caption that
    is scored: a rejected caption does not count, and if none counts the sample is rejected, for the
    reason of its first caption.
    """

    score: Literal["mean", "first", "best"] = "mean"
    """The score of the captions that count. `mean`: the mean of their cosine similarities, as
    training draws each equally often. `first`: that of the first caption, the only one that is then
    encoded and checked by rules. `best`: the largest."""
    keep_scores: bool = False
    """Storage of every caption's score too, in the order of the captions and including rejected
    ones: the list column `caption_scores_<name>` of scores and subset."""
