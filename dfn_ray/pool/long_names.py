"""Abbreviation of sample and member names that are too long to be kept whole."""

from __future__ import annotations

from hashlib import blake2b

MAX_NAME_CHARS = 4096
"""PATH_MAX of Linux: a longer name cannot be unpacked, and a dictionary may assign one of 60 MB to
every row."""
_KEPT_BYTES = 128


def abbreviated_name(name: bytes) -> str:
    """Both ends of a name with a digest of the whole in between, so that names stay distinct."""
    digest = blake2b(name, digest_size=16).hexdigest()
    start, end = (
        part.decode("utf-8", "replace") for part in (name[:_KEPT_BYTES], name[-_KEPT_BYTES:])
    )
    return f"{start}#{digest}#{end}"
