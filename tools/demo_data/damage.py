"""Damages the captions and images of a pool as on the web, and records the damage of each."""

import random
from collections.abc import Callable
from typing import Literal, TypeAlias, assert_never

from tools.demo_data.emoji import LANGUAGES, Emoji

Kind: TypeAlias = Literal["clean", "swapped", "junk", "foreign", "cut", "boilerplate", "broken"]
Fault: TypeAlias = Literal[
    "truncated_jpeg", "html_as_jpg", "zero_bytes", "missing_caption", "broken_json"
]

SHARE_BY_KIND: dict[Kind, float] = {
    "swapped": 0.25,
    "junk": 0.07,
    "foreign": 0.07,
    "cut": 0.05,
    "boilerplate": 0.06,
}
"""Share of the pool per kind: half in total, most of it of the kind that only a network detects."""

FAULTS: tuple[Fault, ...] = (
    "truncated_jpeg",
    "truncated_jpeg",
    "truncated_jpeg",
    "html_as_jpg",
    "html_as_jpg",
    "html_as_jpg",
    "zero_bytes",
    "zero_bytes",
    "missing_caption",
    "missing_caption",
    "broken_json",
    "broken_json",
)
"""The broken samples, on top of the shares above."""

BOILERPLATE = (
    "click here to enlarge",
    "image may be subject to copyright",
    "no image available",
    "sign up for our newsletter",
    "free shipping on all orders over $50",
    "share on facebook",
    "loading, please wait",
    "add to cart",
    "view all products",
    "photo courtesy of the seller",
    "all rights reserved",
    "read more",
    "thumbnail image",
    "download in high resolution",
    "previous next",
    "advertisement",
)
"""Boilerplate of web pages."""

ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested image was moved or deleted.</p></body></html>
"""


def draw_kinds(emoji: list[Emoji], rng: random.Random) -> list[Kind]:
    """A kind for each of the emoji: the exact shares, in random places."""
    kinds: list[Kind] = []
    for kind, share in SHARE_BY_KIND.items():
        kinds.extend(kind for _ in range(round(share * len(emoji))))
    kinds.extend("clean" for _ in range(len(emoji) - len(kinds)))
    rng.shuffle(kinds)
    # Some names (taco) are the same in all five languages: such a sample swaps kinds with a clean
    # one.
    able = iter(
        row for row, kind in enumerate(kinds) if kind == "clean" and foreign_names(emoji[row])
    )
    for row, kind in enumerate(kinds):
        if kind == "foreign" and not foreign_names(emoji[row]):
            other = next(able)
            kinds[row], kinds[other] = kinds[other], kinds[row]
    return kinds


def show_captions(emoji: list[Emoji], kinds: list[Kind], rng: random.Random) -> list[str]:
    """The caption each sample shows, given its kind.

    Swapped captions rotate among the swapped samples, so each is correct for exactly one other
    image of the pool, and no text statistic reveals it.
    """
    swapped = [row for row, kind in enumerate(kinds) if kind == "swapped"]
    donor_by_row = dict(zip(swapped, swapped[1:] + swapped[:1], strict=True))
    shown: list[str] = []
    for row, (one, kind) in enumerate(zip(emoji, kinds, strict=True)):
        match kind:
            case "clean" | "broken":
                shown.append(one.name)
            case "swapped":
                shown.append(emoji[donor_by_row[row]].name)
            case "junk":
                shown.append(junk_caption(rng))
            case "foreign":
                shown.append(rng.choice(foreign_names(one)))
            case "cut":
                shown.append(cut_caption(one.name, rng))
            case "boilerplate":
                shown.append(rng.choice(BOILERPLATE))
            case _:
                assert_never(kind)
    return shown


def junk_caption(rng: random.Random) -> str:
    """A file name, number or identifier, as cameras and content systems leave them."""
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"IMG_{rng.randrange(10000):04}.jpg",
        lambda: f"DSC{rng.randrange(100000):05}.JPG",
        lambda: f"image{rng.randrange(1, 60)}",
        lambda: f"{rng.getrandbits(64):016x}",
        lambda: (
            f"Screenshot 20{rng.randrange(15, 25)}-{rng.randrange(1, 13):02}-"
            f"{rng.randrange(1, 29):02} at {rng.randrange(24):02}.{rng.randrange(60):02}.png"
        ),
        lambda: f"product_{rng.randrange(10**6)}_thumb_{rng.randrange(100, 999)}x200",
        lambda: f"untitled-{rng.randrange(1, 30)}",
    )
    return rng.choice(forms)()


def foreign_names(emoji: Emoji) -> list[str]:
    """The right name in other languages, without those that read as the English name."""
    names = [emoji.name_by_language[language] for language in LANGUAGES]
    return [name for name in names if name.casefold() != emoji.name.casefold()]


def cut_caption(name: str, rng: random.Random) -> str:
    """The name truncated to 30 to 60 % of its letters, at least two."""
    return name[: max(2, int(len(name) * rng.uniform(0.3, 0.6)))].rstrip()


def break_image(content: bytes, fault: Fault) -> bytes:
    """The image bytes with the fault applied; unchanged if the fault is not in the image."""
    match fault:
        case "truncated_jpeg":
            return content[: len(content) * 6 // 10]
        case "html_as_jpg":
            return ERROR_PAGE
        case "zero_bytes":
            return b""
        case "missing_caption" | "broken_json":
            return content
        case _:
            assert_never(fault)
