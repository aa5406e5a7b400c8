"""Texts to train the demo network on: names of emoji, and texts that describe nothing."""

import random

from tools.demo_data.damage import cut_caption
from tools.demo_data.emoji import OTHER_LANGUAGES, Emoji

PAGE_TEXTS = (
    "click to zoom",
    "photo not available",
    "copyright protected image",
    "subscribe to our channel",
    "buy now with free delivery",
    "follow us on twitter",
    "please wait while the page loads",
    "your shopping cart is empty",
    "show more results",
    "picture provided by the author",
    "terms of service and privacy policy",
    "continue reading",
    "small preview",
    "full size download",
    "next page",
    "sponsored content",
    "home about contact",
    "rated 4.5 out of 5 stars",
    "posted by admin",
    "open in new window",
)
"""Boilerplate of web pages, none of it from the pool, so that the pool's stays unseen."""


def describe(emoji: Emoji, rng: random.Random) -> str:
    """A correct caption of the emoji; most often its bare name."""
    tags = rng.sample(emoji.tags, min(2, len(emoji.tags)))
    return rng.choices(
        (
            emoji.name,
            f"{emoji.name} emoji",
            f"a picture of {emoji.name}",
            ", ".join((emoji.name, *tags)),
        ),
        weights=(7, 1, 1, 1),
    )[0]


def mislead(emoji: Emoji, rng: random.Random) -> str:
    """A text that no image should match: foreign, truncated, a file name or boilerplate."""
    return rng.choices(
        (
            foreign_name(emoji, rng),
            cut_caption(emoji.name, rng),
            file_name(rng),
            rng.choice(PAGE_TEXTS),
        ),
        weights=(4, 2, 2, 2),
    )[0]


def foreign_name(emoji: Emoji, rng: random.Random) -> str:
    """The name in a language that the pool does not use, unless it reads as the English name."""
    name = emoji.name_by_language[rng.choice(OTHER_LANGUAGES)]
    return file_name(rng) if name.casefold() == emoji.name.casefold() else name


def file_name(rng: random.Random) -> str:
    """A file name or identifier, in other forms than the pool's."""
    stem = rng.choice(("PICT", "P", "photo-", "scan_", "file", "pic", "img-", "slide", "banner_"))
    number = rng.randrange(10 ** rng.randrange(1, 8))
    return rng.choice(
        (
            f"{stem}{number}",
            f"{stem}{number}.{rng.choice(('jpeg', 'gif', 'bmp', 'JPG', 'png'))}",
            f"{rng.getrandbits(48):x}",
            f"{number}_{rng.randrange(2000)}x{rng.randrange(2000)}",
            f"{rng.randrange(2000, 2026)}{rng.randrange(1, 13):02}{rng.randrange(1, 32):02}",
        )
    )
