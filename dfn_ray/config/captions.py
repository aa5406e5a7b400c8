"""How pairs with several captions are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dfn_ray.config.checks import STRICT


@dataclass(frozen=True, kw_only=True)
class Captions:
    """`[captions]`: the score of an image with several captions. Of no effect unless `pool.caption` is `lines` or `list`.

    `[rules]` judge the captions that are scored: one that they reject does not count, and a sample is rejected, for the
    reason of its first caption, when none counts.
    """

    __pydantic_config__ = STRICT

    score: Literal["mean", "first", "best"] = "mean"
    """Of the captions that count: the mean of their cosine similarities, as training draws each equally often; that of the
    `first` caption, the only one that is then encoded and judged by rules; or the largest."""
    keep_scores: bool = False
    """Also store the score of every caption, in the order of the captions, those that rules reject too: the list column
    `caption_scores_<name>` of scores and subset."""
