"""The section on scoring pairs with several captions."""

from __future__ import annotations

from typing import Literal

from dfn_ray.config.sections import section


@section
class Captions:
    """`[captions]`: the score of an image with several captions.

    It has an effect only if `pool.caption` is `lines` or `list`. `[rules]` check every caption that
    is scored: a rejected caption is ignored, and if all are rejected the sample is rejected, for
    the reason of its first caption.
    """

    score: Literal["mean", "first", "best"] = "mean"
    """Reduction of the scores of the accepted captions to one. `mean`: the mean of their cosine
    similarities, because training draws each of them equally often. `first`: that of the first
    caption, the only one that is then encoded and checked by rules. `best`: the largest."""
    keep_scores: bool = False
    """Also stores the score of every caption, in order and including rejected ones, in the list
    column `caption_scores_<name>` of scores and subset."""
