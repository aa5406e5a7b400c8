"""The header of a safetensors file, read without its tensors, so that it can be checked early.

The format: 8 bytes with the length of a JSON object, the object, the tensors. The object has each
tensor's type, shape and place, and `__metadata__`.
"""

from __future__ import annotations

from typing import IO, Any

from dfn_ray.errors import InputError
from dfn_ray.network.layouts import json_object_of

_LENGTH_BYTES = 8
_MAX_BYTES = 100_000_000
"""Limit of the safetensors package on the length of the object."""


def tensors_in(file: IO[bytes], size: int, where: str) -> dict[str, dict[str, Any]] | None:
    """Returns the entry of each tensor, by name; None for a file of another format.

    `size` is the size of the file in bytes. Raises InputError if bytes are missing at its end, or
    the header is damaged.
    """
    head = file.read(_LENGTH_BYTES + 1)
    if head[_LENGTH_BYTES:] != b"{":
        return None
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    if length > _MAX_BYTES:
        raise InputError(f"{where}: is damaged: it states a header of {length:,} bytes")
    needed = _LENGTH_BYTES + length
    if size >= needed:
        rest = file.read(length - 1)
        entries = json_object_of(b"{" + rest, f"{where}: header")
        entries.pop("__metadata__", None)
        try:
            needed += max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        except (TypeError, KeyError, IndexError, ValueError):
            raise InputError(
                f"{where}: is damaged: its header has a tensor without a place"
            ) from None
        if size >= needed:
            return entries
    raise InputError(f"{where}: is truncated: has {size:,} of {needed:,} bytes; download it again")
