"""Strings of every script and none: captions, names, JSON values."""

from __future__ import annotations

from random import Random

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ÀÉÎÕÜßøñçžłđİıſ",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "αβγδεζηθικλμνξοπρσςτυφχψω",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهوي٠١٢٣",
    "अआइईउऊऋएऐओऔकखगघङचछजझ्ािी",
    "กขฃคฅฆงจฉชซฌญฎฏฐิีึืุู",
    "가나다라마바사아자차카타파하각",
    "日本語漢字仮名交文「」。、",
    "あいうえおカキクケコｶｷｸ",
    "ԱԲԳԴԵաբգდევზთისაქართ",
    "ሀሁሂሃሄህሆለሉሊላᚠᚢᚦᚨᚱ",
    "𝔄𝔅𝒞𝟘𝟙𐍈𒀀𓀀🀄",
)
"""Letters of one script each, some beyond the basic plane."""

EMOJI = ("😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "1️⃣", "❤️‍🔥", "\U000e0067")
CONTROLS = (
    "\0\x01\x07\x08\t\n\v\f\r\x1b\x1f\x7f\x80\x85\x9f"
    "\u200b\u200d\u200e\u202e\u2028\u2029\ufeff\ufffe\uffff"
)
COMBINING = "\u0300\u0301\u0308\u0323\u0489\u20dd\u3099\ufe0f"
MARKUP = (
    "&amp;",
    "&lt;br&gt;",
    "&#39;",
    "&#x1F600;",
    "&amp;amp;quot;",
    "<b>",
    "</p>",
    "&nbsp;",
    "&bogus;",
    "%20",
)
MOJIBAKE = ("Ã©", "â€™", "ï»¿", "Â£", "ä½ å¥½", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚")


def word(rng: Random, most: int = 10) -> str:
    """Letters of one script."""
    alphabet = rng.choice(ALPHABETS)
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, most)))


def text(rng: Random, words: int) -> str:
    """Words of all scripts with everything else in between."""
    pieces = [rng.choice(_PIECES)(rng) for _ in range(words)]
    return rng.choice((" ", " ", "", "\n", "\u3000")).join(pieces)


def file_name(rng: Random) -> str:
    """A name valid on every POSIX file system, without ending.

    Never hidden, at most 100 bytes of UTF-8.
    """
    pieces = [
        word(rng),
        *(rng.choice(_NAME_PIECES) for _ in range(rng.randint(0, 2))),
        word(rng, 4),
    ]
    name = rng.choice(("", " ", "-", "+", "%41", "~")).join(pieces)
    return name.encode()[:100].decode("utf-8", "ignore").lstrip("._") or "x"


_NAME_PIECES = (
    "#", "%", "?", "*", "[1]", "{a,b}", "&year=2020", "=", ";", "'", '"', "\\", "a b", "\n", "\t",
    ":", "@", "!", "$HOME", "é", "e\u0301", "👍🏽", "\u202e", "\x7f", "<x>", "|", "::", "C:", "con",
    "x" * 90,
)  # fmt: skip

_PIECES = (
    word, word, word, word,
    lambda rng: rng.choice(EMOJI),
    lambda rng: rng.choice(CONTROLS),
    lambda rng: "e" + "".join(rng.choice(COMBINING) for _ in range(rng.choice((1, 3, 40)))),
    lambda rng: rng.choice(MARKUP),
    lambda rng: rng.choice(MOJIBAKE),
    lambda rng: str(rng.choice((0, 7, 3.14, 10**30, -1))),
    lambda rng: rng.choice("!?.,;:'\"()[]{}<>/\\|@#$%^*_~`+=-") * rng.choice((1, 1, 3, 30)),
)  # fmt: skip
