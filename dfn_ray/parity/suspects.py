"""The usual suspects where scores differ, and the search for the one, or the pair, that closes the gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from dfn_ray.images.transform import NORMALIZATIONS
from dfn_ray.parity.agreement import Agreement, agreement
from dfn_ray.parity.variant import Variant
from dfn_ray.parity.variant_scores import Rows, Scoring

SCREENED, SCREENED_BY_PAIRS = 64, 24
"""Samples that every suspect, and every pair, is tried on: those that differ most. What closes the gap there is tried on
all. There are about 60 pairs: a ViT-L/14 on a laptop, at 3 images a second, takes 8 minutes for them."""
_INERT = 1e-7
"""A suspect that changes no score by more than this is in no pair."""
_PROMPTS = ("a photo of {}", "a photo of a {}", "a photo of a {}.")
_PROMPT, _CROP = "the prompt", "the crop"
_ROUNDINGS = {"half_even": "open_clip's", "down": "transformers'"}


@dataclass(frozen=True)
class Suspect:
    """A setting with another value than the recipe's."""

    setting: str
    """By which suspects that exclude each other are told."""
    value: str
    apply: Callable[[Variant], Variant]

    @property
    def needs_another(self) -> bool:
        """True where it may change nothing alone: rounding, where the recipe crops nothing."""
        return self.setting == _CROP

    def __str__(self) -> str:
        if self.setting == _PROMPT:
            return f"captions put into {self.value} (the reference does that; no setting of a recipe does)"
        if self.setting == _CROP:
            return (
                f"crops rounded as {self.value} (the reference does that; no setting of a recipe does, but "
                "preprocess_cfg.crop_rounding in the open_clip_config.json of a folder)"
            )
        return f"{self.setting} = {self.value}"


@dataclass(frozen=True)
class Trial:
    """Suspects applied together, and what the scores came to."""

    suspects: tuple[Suspect, ...]
    after: Agreement

    def __str__(self) -> str:
        return " and ".join(map(str, self.suspects))


def suspects_of(base: Variant, network: str) -> list[Suspect]:
    """What may be otherwise in the reference; `network` is the section of the recipe, `networks.0` say."""
    flipped = not base.quick_gelu
    transform = base.transform
    return [
        _suspect(f"{network}.quick_gelu", str(flipped).lower(), quick_gelu=flipped),
        *(
            _transform(f"{network}.resize_mode", mode, resize_mode=mode)
            for mode in ("shortest", "squash", "longest")
            if mode != transform.resize_mode
        ),
        *(
            _transform(f"{network}.interpolation", name, interpolation=name)
            for name in ("bicubic", "bilinear")
            if name != transform.interpolation
        ),
        *(
            _transform(f"{network}.normalization", name, mean=mean, std=std)
            for name, (mean, std) in NORMALIZATIONS.items()
            if (mean, std) != (transform.mean, transform.std)
        ),
        *(
            _transform(_CROP, whose, crop_rounding=name)
            for name, whose in _ROUNDINGS.items()
            if name != transform.crop_rounding
        ),
        *(
            _suspect("decode.on_truncated", f'"{value}"', on_truncated=value)
            for value in ("score", "fail")
            if value != base.on_truncated
        ),
        *(
            _suspect("decode.mode", f'"{value}"', decode_mode=value)
            for value in ("exact", "fast")
            if value != base.decode_mode
        ),
        *(
            _suspect(f"{network}.precision", f'"{value}"', precision=value)
            for value in ("fp32", "bf16", "fp16")
            if value != base.precision
        ),
        *(_suspect(_PROMPT, f'"{prompt}"', prompt=prompt) for prompt in _PROMPTS),
    ]


def _suspect(setting: str, value: str, **changes: Any) -> Suspect:
    return Suspect(setting, value, lambda variant: replace(variant, **changes))


def _transform(setting: str, value: str, **changes: Any) -> Suspect:
    return Suspect(
        setting,
        value if setting == _CROP else f'"{value}"',
        lambda variant: replace(variant, transform=replace(variant.transform, **changes)),
    )


class Search:
    """The search for what makes scores differ from those of a reference."""

    def __init__(
        self, scoring: Scoring, base: Variant, reference: np.ndarray, *, is_half: bool
    ) -> None:
        self._scoring, self._base = scoring, base
        self._reference, self._is_half = reference, is_half
        self.rows: Rows = tuple(range(len(reference)))
        self._scores = scoring.scores(base, self.rows)
        self.before = self._agreement(base, self._scores, self.rows)
        self._screen = self._most_different(SCREENED)
        self._screen_of_pairs = self._most_different(SCREENED_BY_PAIRS)

    def closing(self, suspects: Sequence[Suspect]) -> tuple[Trial | None, Trial]:
        """The single suspect that closes the gap, and the one that comes closest to it."""
        tried = self._tried(((suspect,) for suspect in suspects), self._screen)
        return self._confirmed(tried), min(tried, key=_distance)

    def closing_pair(self, suspects: Sequence[Suspect]) -> Trial | None:
        """The pair of suspects that closes the gap together. Those that change nothing are left out."""
        return self._confirmed(self._tried(self.pairs(suspects), self._screen_of_pairs))

    def pairs(self, suspects: Sequence[Suspect]) -> list[tuple[Suspect, Suspect]]:
        """Pairs of suspects of different settings that change scores, or may do so together."""
        moving = [s for s in suspects if s.needs_another or self._moves(s)]
        pairs = [(a, b) for a, b in combinations(moving, 2) if a.setting != b.setting]
        # Those of one activation and precision together: each such network is built once.
        return sorted(pairs, key=lambda pair: _built_as(self._applied(pair)))

    def _tried(self, combined: Iterable[tuple[Suspect, ...]], rows: Rows) -> list[Trial]:
        return [self._trial(some, rows) for some in combined]

    def _trial(self, suspects: tuple[Suspect, ...], rows: Rows) -> Trial:
        variant = self._applied(suspects)
        return Trial(suspects, self._agreement(variant, self._scoring.scores(variant, rows), rows))

    def _confirmed(self, tried: Sequence[Trial]) -> Trial | None:
        """The best of those that agree on the screened samples and, tried on all, there as well."""
        for trial in sorted(tried, key=_distance):
            if not trial.after.agrees:
                break
            confirmed = self._trial(trial.suspects, self.rows)
            if confirmed.after.agrees and self._explains(confirmed.after):
                return confirmed
        return None

    def _explains(self, after: Agreement) -> bool:
        """False where scores agree only because of a wider floor: bfloat16's hides what another setting does."""
        return self.before.one_sided > 0 or after.mean < self.before.mean / 2

    def _applied(self, suspects: Iterable[Suspect]) -> Variant:
        variant = self._base
        for suspect in suspects:
            variant = suspect.apply(variant)
        return variant

    def _moves(self, suspect: Suspect) -> bool:
        scores = self._scoring.scores(self._applied((suspect,)), self._screen)
        base = self._scores[list(self._screen)]
        return not np.allclose(scores, base, rtol=0, atol=_INERT, equal_nan=True)

    def _agreement(self, variant: Variant, scores: np.ndarray, rows: Rows) -> Agreement:
        there = self._reference[list(rows)]
        return agreement(scores, there, is_half=self._is_half, precision=variant.precision)

    def _most_different(self, count: int) -> Rows:
        """Rows that have a score on one side only, then those that differ most."""
        difference = np.abs(self._scores - self._reference)
        one_sided = np.isfinite(self._scores) != np.isfinite(self._reference)
        difference[one_sided] = np.inf
        order = np.argsort(-np.nan_to_num(difference, nan=-1.0, posinf=np.inf), kind="stable")
        return tuple(sorted(order[:count].tolist()))


def _distance(trial: Trial) -> tuple[bool, int, float]:
    """The order from close to far: agreeing, fewest scores on one side, smallest mean difference."""
    return (not trial.after.agrees, trial.after.one_sided, trial.after.mean)


def _built_as(variant: Variant) -> tuple[bool, str]:
    return (variant.quick_gelu, variant.precision)
