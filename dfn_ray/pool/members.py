"""What the name of a tar member says: the sample it belongs to and its part in it.

WebDataset's rule: members of one sample share their path up to the first dot of the file name. Two
things are added. An image with more dots names its sample by everything before its last extension
(`img.v2.jpg` is the image of `img.v2`, as is `img.v2.txt` its caption). And a caption or metadata
with more dots whose image never shows is an extra of another sample (RayGen's `x.syn.json` beside
`x.jpg`), as is every other extension (`x.npz`, `x.cls`): neither makes a sample. In a labelled pool
`cls` takes the place of `txt`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from dfn_ray.image_formats import IMAGE_EXTENSIONS


class Role(Enum):
    """The part of a member in its sample."""

    IMAGE = auto()
    CAPTION = auto()
    METADATA = auto()


class Part(NamedTuple):
    """A member as part of a sample."""

    key: str
    role: Role
    loose: bool
    """Belongs to the sample only if that sample has an image."""
    unsafe: bool
    """The name would leave the folder it is unpacked in."""


def part_of(name: str, caption_extension: str) -> Part | None:
    """The part that a member plays, or None when it plays none. Captions have `caption_extension`.

    Folders of operating systems (`__MACOSX`, `PaxHeaders`) and hidden files (`._x.jpg`) play none.
    """
    *folders, base = name.replace("\\", "/").split("/")
    stem, dot, extension = base.rpartition(".")
    if not dot or base[0] == ".":
        return None
    extension = extension.lower()
    if extension in IMAGE_EXTENSIONS:
        role = Role.IMAGE
    elif extension == caption_extension:
        role = Role.CAPTION
    elif extension == "json":
        role = Role.METADATA
    else:
        return None
    if any(part == "__MACOSX" or part.startswith("PaxHeaders") for part in folders):
        return None
    key = name[: -len(extension) - 1]
    return Part(
        key=key[2:] if key.startswith("./") else key,
        role=role,
        loose=role is not Role.IMAGE and "." in stem,
        unsafe=".." in folders or "\0" in name or (len(folders) > 0 and not folders[0]),
    )
