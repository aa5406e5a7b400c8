"""JSON files and lists that say by a digest of their own whether they are whole and unaltered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dfn_ray.errors import DamagedRunError, MissingFileError
from dfn_ray.run.shapes import invalid_fields
from dfn_ray.storage import Store
from dfn_ray.untrusted.json_text import MAX_OWN_DEPTH, parsed

_SEAL = "sha256"
RESTORE = "restore it from a copy, or score the pool into another run_uri"
"""What to do about a damaged file that cannot be made again."""
RESTORE_TRAINING = "restore it from a copy, or train into another run_uri"
"""The same in a run of training."""


def _sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of all else in it, under `sha256`."""
    return {**value, _SEAL: _digest(value)}


def _unsealed(value: Any, where: str, *, require_digest: bool, advice: str) -> dict[str, Any]:
    """What `_sealed` was given, which is at `where`. Raises DamagedRunError if the value is altered.

    `require_digest`: False takes an object without a digest as well, as runs of format 1 have them.
    """
    if not isinstance(value, dict):
        raise DamagedRunError(f"{where}: is damaged: not a JSON object; {advice}")
    found: dict[str, Any] = dict(value)
    seal = found.pop(_SEAL, None)
    if seal != _digest(found) and (require_digest or seal is not None):
        raise DamagedRunError(
            f"{where}: is damaged or was altered: it is not what its digest says; {advice}"
        )
    return found


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """A sealed JSON file."""
    return json.dumps(_sealed(value), indent=1).encode()


def parsed_json(
    data: bytes,
    where: str,
    *,
    require_digest: bool,
    shape: Any = dict[str, Any],
    advice: str = RESTORE,
) -> dict[str, Any]:
    """The content of a JSON file of ours, read from `where`, which has that shape. Raises DamagedRunError.

    `advice` says what to do about a damaged one.
    """
    try:
        value = parsed(data.decode(), max_depth=MAX_OWN_DEPTH)
    except ValueError as error:
        raise DamagedRunError(f"{where}: is damaged: no JSON ({error}); {advice}") from None
    found = _unsealed(value, where, require_digest=require_digest, advice=advice)
    require_valid(invalid_fields(shape, found), where, advice)
    return found


def require_valid(wrong: Sequence[str], where: str, advice: str = RESTORE) -> None:
    """Raise DamagedRunError for a JSON file in which values of those names are wrong."""
    if wrong:
        raise DamagedRunError(
            f"{where}: is damaged: it has no {', '.join(wrong)} of the right type; {advice}"
        )


def names_file(kind: str, names: Sequence[str]) -> tuple[str, bytes]:
    """A list of names as a file, a name a line: what it is called (`KIND-DIGEST.txt`) and its content."""
    data = "".join(f"{name}\n" for name in names).encode()
    return f"{kind}-{hashlib.sha256(data).hexdigest()[:32]}.txt", data


def read_names(store: Store, called: str) -> list[str]:
    """The names of a list. Raises DamagedRunError when they are not those that were written."""
    data = read_required(store, called)
    if hashlib.sha256(data).hexdigest()[:32] not in called:
        raise DamagedRunError(
            f"{store.uri_of(called)}: is damaged: its content is not what its name says; {RESTORE}"
        )
    return data.decode().splitlines()


def read_required(store: Store, name: str) -> bytes:
    """The bytes of a file that a run must have. Raises DamagedRunError when it is absent."""
    try:
        return store.read(name)
    except MissingFileError:
        raise DamagedRunError(f"{store.uri_of(name)}: is absent; {RESTORE}") from None


def _digest(value: Mapping[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
