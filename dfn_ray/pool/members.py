"""Tar member names: the sample that a member belongs to, and its role in it.

WebDataset's rule: members of one sample share their path up to the first dot of the file name.
Three rules are added. An image with more dots names its sample by everything before its last
extension (`img.v2.jpg` is the image of `img.v2`, as `img.v2.txt` is its caption), unless it is an
extra of the sample with a shorter name (`000.seg.png` beside `000.jpg`; see `pieces`). A caption or
metadata with more dots whose image never appears is an extra of another sample (RayGen's
`x.syn.json` beside `x.jpg`), as is every other extension (`x.npz`, `x.cls`): neither makes a
sample. Nor do texts and JSON about the archive (`__index__.json`, `dataset_info.json`,
`README.txt`), unless an image has that very name. In a labelled pool `cls` takes the place of
`txt`. With `pool.caption = "list"` a number before `.txt` is the number of the caption and not part
of the key: `x.0.txt`, `x.1.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from dfn_ray.config import Pool
from dfn_ray.images.formats import IMAGE_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dfn_ray.pool.captions import TEXT

_MAX_SHORTER_KEYS = 64
"""Number of shorter names that a dotted name is compared with; each is a copy, and a name may
contain thousands of dots. Host names and versions in file names have about a dozen."""

_NUMBERED = re.compile(r"(.+)\.([0-9]{1,4})", re.DOTALL)

_ABOUT_THE_ARCHIVE = frozenset(
    {
        "changelog",
        "copying",
        "dataset_info",
        "dataset_infos",
        "licence",
        "license",
        "notice",
        "readme",
    }
)
"""Names that dataset archives use for texts about themselves, in lower case."""


class Role(Enum):
    """The role of a member in its sample."""

    IMAGE = auto()
    UNSUPPORTED = auto()
    """An image in a format that is not decoded."""
    CAPTION = auto()
    METADATA = auto()


_IMAGES = (Role.IMAGE, Role.UNSUPPORTED)


class CaptionMembers(NamedTuple):
    """File names of members with captions."""

    extension: str = "txt"
    numbered: bool = False
    """Several per sample, also as `NUMBER.EXTENSION`."""

    @staticmethod
    def of(pool: Pool) -> CaptionMembers:
        """The names that a pool uses."""
        extension = "cls" if pool.caption == "label" else "txt"
        return CaptionMembers(extension, pool.caption == "list")


class MemberRole(NamedTuple):
    """A member as part of a sample."""

    key: str
    role: Role
    loose: bool
    """A caption or metadata that belongs to the sample only if that sample has an image."""
    dotted: bool
    """An image that is an extra if a sample with a shorter name has an image."""
    unsafe: bool
    """The name would escape the folder that the archive is unpacked in."""
    number: int = TEXT
    """Number of a caption among several."""

    @property
    def is_image(self) -> bool:
        """True for an image of any format."""
        return self.role in _IMAGES


def member_role(name: str, captions: CaptionMembers) -> MemberRole | None:
    """The role of a member, or None if it has none.

    Members in folders of operating systems (`__MACOSX`, `PaxHeaders`) and hidden files (`._x.jpg`)
    have none.
    """
    *folders, base = name.replace("\\", "/").split("/")
    stem, dot, extension = base.rpartition(".")
    if not dot or base[0] == ".":
        return None
    extension = extension.lower()
    if extension in IMAGE_EXTENSIONS:
        role = Role.IMAGE
    elif extension == captions.extension:
        role = Role.CAPTION
    elif extension == "json":
        role = Role.METADATA
    elif extension in UNSUPPORTED_EXTENSIONS:
        role = Role.UNSUPPORTED
    else:
        return None
    if any(part == "__MACOSX" or part.startswith("PaxHeaders") for part in folders):
        return None
    key, number = name[: -len(extension) - 1], TEXT
    if role is Role.CAPTION and captions.numbered and (numbered := _NUMBERED.fullmatch(stem)):
        stem, number = numbered[1], int(numbered[2])
        key = key[: -len(numbered[2]) - 1]
    dotted, is_image = "." in stem, role in _IMAGES
    return MemberRole(
        key=key[2:] if key.startswith("./") else key,
        role=role,
        loose=not is_image and (dotted or _is_about_the_archive(stem)),
        dotted=is_image and dotted,
        unsafe=".." in folders or "\0" in name or (len(folders) > 0 and not folders[0]),
        number=number,
    )


def shorter_keys(key: str) -> Iterator[str]:
    """The keys that end at a dot of the file name in `key`, shortest first.

    `x/a`, `x/a.b` for `x/a.b.c`; at most the `_MAX_SHORTER_KEYS` shortest.
    """
    at = _base_of(key)
    for _ in range(_MAX_SHORTER_KEYS):
        at = key.find(".", at + 1)
        if at < 0:
            return
        yield key[:at]


def root_of(key: str) -> str:
    """The shortest of `shorter_keys`; the key itself if its file name has no dot."""
    return next(shorter_keys(key), key)


def _base_of(key: str) -> int:
    """Index of the first character of the file name."""
    return max(key.rfind("/"), key.rfind("\\")) + 1


def _is_about_the_archive(stem: str) -> bool:
    return stem.startswith("__") or stem.lower() in _ABOUT_THE_ARCHIVE
