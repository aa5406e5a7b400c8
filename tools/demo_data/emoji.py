"""The emoji of the demo: their names in several languages, and the choice for the pool."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tools.demo_data.packages import EMOJIBASE, GOOGLE, read_package

SIDE = 64
"""Side of every demo image in pixels: the size at which the pool's images are published."""

LANGUAGES = ("de", "es", "fr", "it", "pt")
"""Languages of the pool's foreign captions: Latin letters, so that no script reveals them."""

OTHER_LANGUAGES = ("da", "et", "fi", "hu", "lt", "nb", "nl", "pl", "sv")
"""Languages of the foreign texts in training: none of the pool's, so that its test stays unseen."""


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One base emoji (no skin tone) with its CLDR names."""

    code: str
    """Upper-case hex code points joined by '-', without the variation selector FE0F."""
    name: str
    """English CLDR short name, e.g. 'grinning face': the caption."""
    tags: tuple[str, ...]
    """English CLDR keywords."""
    category: str
    image: str
    """File name of its renderings in the emoji-datasource packages."""
    name_by_language: dict[str, str]
    """CLDR short name per language of LANGUAGES and OTHER_LANGUAGES."""


def normal_code(code: str) -> str:
    """The code as used here: sources disagree about case and about the variation selector."""
    return code.upper().replace("-FE0F", "")


def read_emoji(packages: Path) -> list[Emoji]:
    """Every base emoji of Unicode 16 that the pool's artist drew, in order of code."""
    drawn = json.loads(read_package(packages, GOOGLE, "package/emoji.json")[""])
    names = read_package(packages, EMOJIBASE, "package/")
    entry_by_code = {
        language: {
            normal_code(entry["hexcode"]): entry
            for entry in json.loads(names[f"{language}/data.json"])
        }
        for language in ("en", *LANGUAGES, *OTHER_LANGUAGES)
    }
    emoji = [
        Emoji(
            code=code,
            name=entry_by_code["en"][code]["label"],
            tags=tuple(entry_by_code["en"][code].get("tags", ())),
            category=entry["category"],
            image=entry["image"],
            name_by_language={
                language: entry_by_code[language][code]["label"]
                for language in (*LANGUAGES, *OTHER_LANGUAGES)
            },
        )
        for entry in drawn
        if entry["has_img_google"]
        for code in [normal_code(entry["unified"])]
    ]
    return sorted(emoji, key=lambda one: one.code)


def is_near_copy(emoji: Emoji) -> bool:
    """True for flags, skin tones, families and the gendered or right-facing form of another emoji.

    The pool leaves them out: in a tar, a sample's three members take at least 2.5 KB, so that all
    1,911 emoji need 8 MB, more than the 6 MB that may ship; these add the least. Flags go for a
    second reason: one training artist's package holds the pool artist's own flags.
    """
    points = emoji.code.split("-")
    gendered = "2640" in points or "2642" in points or points[0] in ("1F468", "1F469")
    grouped = emoji.name.startswith(("family:", "couple with heart:", "kiss:"))
    return (
        emoji.category in ("Flags", "Component")
        or (len(points) > 1 and gendered)
        or points[-1] == "27A1"
        or grouped
    )


def flatten(image: Image.Image) -> Image.Image:
    """The image in RGB on white, SIDE pixels square."""
    coloured = image.convert("RGBA")
    if coloured.size != (SIDE, SIDE):
        coloured = coloured.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", coloured.size, "white")
    white.alpha_composite(coloured)
    return white.convert("RGB")


def open_flat(content: bytes) -> Image.Image:
    """The encoded image, decoded and flattened."""
    return flatten(Image.open(io.BytesIO(content)))
