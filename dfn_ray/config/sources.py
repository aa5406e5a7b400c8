"""The sections on training data: `[[sources]]`, their labels, and `[augmentation]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from dfn_ray.config.checks import Fraction, Positive, PositiveNumber, Text, Texts, Uri
from dfn_ray.config.pool import Pool
from dfn_ray.config.sections import require_rules, section


@section
class Labels:
    """`[sources.labels]`: captions for a labelled set, `template.format(class name)`.

    A different template is drawn for a sample in each pass, as the DFN paper does to fine-tune on
    ImageNet.
    """

    classnames: Texts
    """One name per class, in label order; or the path or URI of a file with one name per line; or
    `imagenet`."""
    templates: Texts = ("openai",)
    """`openai`: the 80 that open_clip calls OPENAI_IMAGENET_TEMPLATES; `simple`: its 7; or texts
    with `{}`."""


@section
class Source:
    """`[[sources]]`: image-text pairs to train on."""

    pool: Pool
    """The folder of a subset, or a pool in any format that filtering reads. If samples have several
    captions (`caption = "lines"` or `"list"`; for a subset of either, `"list"`), one is drawn each
    time a sample is used; over as many passes as there are captions, each is used once."""
    name: Text = "pairs"
    """Name in logs."""
    weight: PositiveNumber | None = None
    """Share of the samples seen, relative to the other sources, > 0. None for all: proportional to
    the sizes of the sources."""
    sample_count: Positive | None = None
    """Number of its samples to train on, >= 1, drawn at random by `seed` of the recipe; the same
    ones in every pass. None: all."""
    uid_list: Uri | None = None
    """Path or URI of a sorted u8,u8 list: trains only on the samples in it, each as often in a pass
    as it is in the list."""
    labels: Labels | None = None
    """`[sources.labels]`: captions made of class numbers (a `cls` member or an integer column).
    Required with `pool.caption = "label"`."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        if (self.labels is not None) != (self.pool.caption == "label"):
            yield (
                'labels: [sources.labels] and pool.caption = "label" need each other, got only one '
                "of the two"
            )


@section
class Augmentation:
    """`[augmentation]`: random changes to each image in each pass.

    Defaults are open_clip's AugmentationCfg.
    """

    min_scale: Annotated[float, Field(ge=0.01, le=1.0)] = 0.9
    """Smallest fraction of the area that the random crop keeps, 0.01 to `max_scale`."""
    max_scale: Annotated[float, Field(ge=0.01, le=1.0)] = 1.0
    """Largest fraction of the area that the random crop keeps, `min_scale` to 1."""
    min_ratio: Annotated[float, Field(ge=0.01)] = 0.75
    """Smallest width / height of the crop, before it is resized to the network's input, 0.01 to
    `max_ratio`."""
    max_ratio: Annotated[float, Field(ge=0.01)] = 4 / 3
    """Largest width / height of the crop, >= `min_ratio`."""
    flip_probability: Fraction = 0.0
    """Probability of mirroring, 0 to 1. open_clip never mirrors: text, and left and right in
    captions, would be wrong."""
    jitter: Fraction = 0.0
    """Brightness, contrast and saturation are scaled by 1 - jitter to 1 + jitter, 0 to 1."""
    hue_jitter: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Largest shift of hues, as a fraction of the colour circle, 0 to 0.5."""
    grayscale_probability: Fraction = 0.0
    """Probability of converting to greyscale, 0 to 1."""

    def __post_init__(self) -> None:
        require_rules(self._broken_rules())

    def _broken_rules(self) -> Iterator[str]:
        for low, high in (("min_scale", "max_scale"), ("min_ratio", "max_ratio")):
            small, large = getattr(self, low), getattr(self, high)
            if small > large:
                yield f"{low}: need {low} <= {high}, got {small} and {large}"
