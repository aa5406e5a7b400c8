"""Renderings of the emoji by artists other than the pool's, as training images with names."""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from tools.demo_data.emoji import SIDE, Emoji, flatten, normal_code, open_flat
from tools.demo_data.packages import (
    EMOJITWO,
    FIREFOX_OS,
    FLUENT_3D,
    FLUENT_FLAT,
    TWITTER,
    Package,
    read_package,
)


@dataclass(frozen=True, kw_only=True)
class Renderings:
    """Images and, for each, the emoji it shows and the artist."""

    image_NHWC: NDArray[np.uint8]
    """RGB on white, SIDE pixels square."""
    emoji_N: NDArray[np.int64]
    """Row of the emoji in the requested list."""
    artist_N: NDArray[np.int64]
    """Position in ARTISTS."""


ARTISTS = ("twitter", "fluent_3d", "fluent_flat", "emojitwo", "firefox_os")


def read_renderings(packages: Path, emoji: list[Emoji]) -> Renderings:
    """Every rendering of the emoji by the training artists."""
    image: list[NDArray[np.uint8]] = []
    row: list[int] = []
    artist: list[int] = []
    for number, drawn in enumerate(
        (
            read_twitter(packages, emoji),
            read_fluent(packages, FLUENT_3D),
            read_fluent(packages, FLUENT_FLAT),
            read_icons(packages, EMOJITWO, emoji),
            read_icons(packages, FIREFOX_OS, emoji),
        )
    ):
        for position, one in enumerate(emoji):
            if one.code in drawn:
                image.append(np.asarray(drawn[one.code]))
                row.append(position)
                artist.append(number)
    return Renderings(
        image_NHWC=np.stack(image),
        emoji_N=np.array(row),
        artist_N=np.array(artist),
    )


def read_twitter(packages: Path, emoji: list[Emoji]) -> dict[str, Image.Image]:
    """Twemoji by code."""
    files = read_package(packages, TWITTER, f"package/img/twitter/{SIDE}/")
    return {one.code: open_flat(files[one.image]) for one in emoji if one.image in files}


def read_fluent(packages: Path, package: Package) -> dict[str, Image.Image]:
    """Microsoft's Fluent emoji by code, in one of its styles."""
    files = read_package(packages, package, "package/assets/")
    return {
        normal_code(Path(name).stem): render_svg(content.decode())
        if name.endswith(".svg")
        else open_flat(content)
        for name, content in files.items()
    }


def read_icons(packages: Path, package: Package, emoji: list[Emoji]) -> dict[str, Image.Image]:
    """An icon set by code. Its icons are identified by name only, so not all are found."""
    icons = json.loads(read_package(packages, package, "package/icons.json")[""])
    icon_by_name = {squeeze(name): icon for name, icon in icons["icons"].items()}
    drawn: dict[str, Image.Image] = {}
    for one in emoji:
        # The CLDR name alone: Unicode's older names mix up 'dog' and 'dog face'.
        icon = icon_by_name.get(squeeze(one.name))
        if icon is not None:
            left, top, width, height = (
                icon.get(part, icons.get(part, default))
                for part, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
            )
            drawn[one.code] = render_svg(
                '<svg xmlns="http://www.w3.org/2000/svg" '
                'xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
            )
    return drawn


def squeeze(name: str) -> str:
    """The name's letters and digits in lower case: the part that its spellings share."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def render_svg(svg: str) -> Image.Image:
    """The drawing at SIDE pixels, flattened."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, skip_system_fonts=True)
    return flatten(Image.open(io.BytesIO(bytes(png))))
