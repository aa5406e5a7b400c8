"""A fraction of a number of samples, exact for fractions written in decimals."""

from __future__ import annotations

from fractions import Fraction
from math import floor


def count_of_fraction(fraction: float, n: int) -> int:
    """floor(fraction * n), with the fraction taken as it is written in decimals.

    In binary floating point 0.29 * 100 is 28.999999999999996.
    """
    return floor(Fraction(repr(fraction)) * n)
