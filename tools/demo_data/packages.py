"""Yields the files of the published packages that the demo data is made of, checked by digest."""

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Package:
    """One published package at one version, as its registry serves it."""

    file: str
    """File name that `npm pack NAME@VERSION` writes."""
    sha256: str
    """Digest of that file in hex, so that the demo data always matches its published figures."""


EMOJIBASE = Package(
    file="emojibase-data-16.0.3.tgz",
    sha256="cab288279075778f15b37f3ca60dfb17759af6fe29758e07338e248879991689",
)
GOOGLE = Package(
    file="emoji-datasource-google-16.0.0.tgz",
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
TWITTER = Package(
    file="emoji-datasource-twitter-16.0.0.tgz",
    sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
FLUENT_3D = Package(
    file="lobehub-fluent-emoji-3d-1.1.0.tgz",
    sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
)
FLUENT_FLAT = Package(
    file="lobehub-fluent-emoji-flat-1.1.0.tgz",
    sha256="8f9113c027c7c20eced0070354715a4093a459b8bef6332b91d45f38c9bdb147",
)
EMOJITWO = Package(
    file="iconify-json-emojione-1.2.3.tgz",
    sha256="26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
)
FIREFOX_OS = Package(
    file="iconify-json-fxemoji-1.2.2.tgz",
    sha256="f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
)


def read_package(packages: Path, package: Package, prefix: str) -> dict[str, bytes]:
    """The bytes of every file of a package under a prefix, by path after the prefix.

    Raises:
        FileNotFoundError: the package is not in the folder `packages`.
        ValueError: it is, with other bytes than the figures were measured on.
    """
    path = packages / package.file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Download it as described in ATTRIBUTION.md")
    archive = path.read_bytes()
    digest = hashlib.sha256(archive).hexdigest()
    if digest != package.sha256:
        raise ValueError(f"{path} has sha256 {digest}, need {package.sha256}")
    files: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(prefix):
                content = tar.extractfile(member)
                assert content is not None  # isfile() members always have content
                files[member.name.removeprefix(prefix)] = content.read()
    return files
