"""Suspects when scores differ, and the search for the one, or the pair, that closes the gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from dfn_ray.images.transform import NORMALIZATIONS
from dfn_ray.parity.agreement import Agreement, agreement
from dfn_ray.parity.variant import Variant
from dfn_ray.parity.variant_scores import Rows, VariantScorer

SCREENED, SCREENED_BY_PAIRS = 64, 24
"""Samples that every suspect, and every pair, is tried on: those that differ most. Candidates that
close the gap there are tried on all samples. There are about 60 pairs: 8 minutes for a ViT-L/14 on
a laptop at 3 images/s."""
_INERT = 1e-7
"""A suspect that changes no score by more than this is left out of pairs."""
_PROMPTS = ("a photo of {}", "a photo of a {}", "a photo of a {}.")
_PROMPT, _CROP = "the prompt", "the crop"
_ROUNDINGS = {"half_even": "open_clip's", "down": "transformers'"}


@dataclass(frozen=True)
class Suspect:
    """A setting with a value other than the recipe's."""

    setting: str
    """Dotted name; suspects of one setting exclude each other."""
    value: str
    apply: Callable[[Variant], Variant]

    @property
    def needs_another(self) -> bool:
        """True if it may have no effect alone: rounding, if the recipe crops nothing."""
        return self.setting == _CROP

    def __str__(self) -> str:
        if self.setting == _PROMPT:
            return (
                f"captions inserted into {self.value} (as the reference does; recipes have no such "
                "setting)"
            )
        if self.setting == _CROP:
            return (
                f"crops rounded as {self.value} (as the reference does; recipes have no such "
                "setting, but the open_clip_config.json of a folder has "
                "preprocess_cfg.crop_rounding)"
            )
        return f"{self.setting} = {self.value}"


@dataclass(frozen=True)
class Trial:
    """Suspects applied together, and the resulting agreement."""

    suspects: tuple[Suspect, ...]
    after: Agreement

    def __str__(self) -> str:
        return " and ".join(map(str, self.suspects))


def suspects_of(base: Variant, network: str, *, has_both_activations: bool = True) -> list[Suspect]:
    """Settings that may differ in the reference; `network` is a section such as `networks.0`.

    `has_both_activations` False: the network cannot have quick_gelu.
    """
    flipped = not base.quick_gelu
    transform = base.transform
    return [
        *(
            [_suspect(f"{network}.quick_gelu", str(flipped).lower(), quick_gelu=flipped)]
            if has_both_activations
            else []
        ),
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
    """A search for the settings that make scores differ from those of a reference."""

    def __init__(
        self, scorer: VariantScorer, base: Variant, reference: np.ndarray, *, is_half: bool
    ) -> None:
        self._scorer, self._base = scorer, base
        self._reference, self._is_half = reference, is_half
        self.rows: Rows = tuple(range(len(reference)))
        self._scores = scorer.scores(base, self.rows)
        self.before = self._agreement(base, self._scores, self.rows)
        self._screen = self._most_different(SCREENED)
        self._screen_of_pairs = self._most_different(SCREENED_BY_PAIRS)

    def best_single(self, suspects: Sequence[Suspect]) -> tuple[Trial | None, Trial]:
        """The single suspect that closes the gap, if any, and the one that comes closest."""
        tried = self._trials(((suspect,) for suspect in suspects), self._screen)
        return self._confirm(tried), min(tried, key=_distance)

    def best_pair(self, suspects: Sequence[Suspect]) -> Trial | None:
        """The pair of suspects that closes the gap, if any; those without effect are left out."""
        return self._confirm(self._trials(self.pairs(suspects), self._screen_of_pairs))

    def pairs(self, suspects: Sequence[Suspect]) -> list[tuple[Suspect, Suspect]]:
        """Pairs of suspects of different settings that change scores, or may do so together."""
        moving = [s for s in suspects if s.needs_another or self._changes_scores(s)]
        pairs = [(a, b) for a, b in combinations(moving, 2) if a.setting != b.setting]
        # Grouped by activation and precision, so that each such network is built once.
        return sorted(pairs, key=lambda pair: _build_key(self._variant(pair)))

    def _trials(self, combined: Iterable[tuple[Suspect, ...]], rows: Rows) -> list[Trial]:
        return [self._trial(some, rows) for some in combined]

    def _trial(self, suspects: tuple[Suspect, ...], rows: Rows) -> Trial:
        variant = self._variant(suspects)
        return Trial(suspects, self._agreement(variant, self._scorer.scores(variant, rows), rows))

    def _confirm(self, tried: Sequence[Trial]) -> Trial | None:
        """The best trial that agrees on the screened samples and, repeated, on all samples."""
        for trial in sorted(tried, key=_distance):
            if not trial.after.agrees:
                break
            confirmed = self._trial(trial.suspects, self.rows)
            if confirmed.after.agrees and self._explains(confirmed.after):
                return confirmed
        return None

    def _explains(self, after: Agreement) -> bool:
        """False if scores agree only because bfloat16's wider floor hides the difference."""
        return self.before.one_sided > 0 or after.mean < self.before.mean / 2

    def _variant(self, suspects: Iterable[Suspect]) -> Variant:
        variant = self._base
        for suspect in suspects:
            variant = suspect.apply(variant)
        return variant

    def _changes_scores(self, suspect: Suspect) -> bool:
        scores = self._scorer.scores(self._variant((suspect,)), self._screen)
        base = self._scores[list(self._screen)]
        return not np.allclose(scores, base, rtol=0, atol=_INERT, equal_nan=True)

    def _agreement(self, variant: Variant, scores: np.ndarray, rows: Rows) -> Agreement:
        reference = self._reference[list(rows)]
        return agreement(scores, reference, is_half=self._is_half, precision=variant.precision)

    def _most_different(self, count: int) -> Rows:
        """Rows that have a score on one side only, then those that differ most."""
        difference = np.abs(self._scores - self._reference)
        one_sided = np.isfinite(self._scores) != np.isfinite(self._reference)
        difference[one_sided] = np.inf
        order = np.argsort(-np.nan_to_num(difference, nan=-1.0, posinf=np.inf), kind="stable")
        return tuple(sorted(order[:count].tolist()))


def _distance(trial: Trial) -> tuple[bool, int, float]:
    """The sort key, closest first: agreement, fewest one-sided scores, smallest mean difference."""
    return (not trial.after.agrees, trial.after.one_sided, trial.after.mean)


def _build_key(variant: Variant) -> tuple[bool, str]:
    return (variant.quick_gelu, variant.precision)
