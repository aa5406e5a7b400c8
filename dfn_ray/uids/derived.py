"""The name of a sample outside its shard: 32 lower-case hex digits."""

from __future__ import annotations

import hashlib
import re
from typing import Any

_UID = re.compile(r"[0-9a-fA-F]{32}")


def derive_uid(shard_name: str, key: str) -> str:
    """The uid of a sample without one: BLAKE2b-128 of shard name, NUL and key, as UTF-8.

    This function is a promise: the same name and key yield the same uid in every version of
    dfn_ray, because subsets are lists of uids and outlive the code that made them.
    """
    return hashlib.blake2b(f"{shard_name}\0{key}".encode(), digest_size=16).hexdigest()


def own_uid(value: Any) -> str | None:
    """The uid that a sample brings, in lower case; None if `value` is not 32 hex digits."""
    return value.lower() if isinstance(value, str) and _UID.fullmatch(value) else None
