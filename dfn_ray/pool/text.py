"""Visible text."""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "["
    r"\s\0-\x20\x7f-\xa0\xad"
    "\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "]*"
)
"""White space, control and format characters (Unicode 15: Cc, Cf, Zs, Zl, Zp), all others with the
property Default_Ignorable_Code_Point (fillers of Hangul, variation selectors), and the Braille
pattern without dots."""


def has_visible(text: str) -> bool:
    """True if a text contains a visible character.

    White space, NUL, zero-width and other control characters are invisible.
    """
    if text[:1].isascii() and text[:1].isalnum():
        return True  # the first character of nearly every text
    match = _INVISIBLE.match(text)
    return match is not None and match.end() < len(text)
