"""JSON files and lists of names that contain a digest of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dfn_ray.errors import DamagedRunError, MissingFileError
from dfn_ray.run.shapes import invalid_fields
from dfn_ray.storage import Store
from dfn_ray.untrusted.json_text import MAX_OWN_DEPTH, parse_json

_SEAL = "sha256"
RESTORE = "restore it from a copy, or score the pool into another run_uri"
"""Advice for a damaged file that cannot be recreated."""
RESTORE_TRAINING = "restore it from a copy, or train into another run_uri"
"""The same for a training run."""


def _sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with the digest of all other fields under `sha256`."""
    return {**value, _SEAL: _digest(value)}


def _unsealed(value: Any, where: str, *, require_digest: bool, advice: str) -> dict[str, Any]:
    """The object without its digest. Raises DamagedRunError, naming `where`, if it was altered.

    `require_digest`: False also accepts an object without a digest, as in runs of format 1.
    """
    if not isinstance(value, dict):
        raise DamagedRunError(f"{where}: is damaged: not a JSON object; {advice}")
    found: dict[str, Any] = dict(value)
    seal = found.pop(_SEAL, None)
    if seal != _digest(found) and (require_digest or seal is not None):
        raise DamagedRunError(
            f"{where}: is damaged or was altered: it does not match its digest; {advice}"
        )
    return found


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """The content of a JSON file with its digest."""
    return json.dumps(_sealed(value), indent=1).encode()


def parsed_json(
    data: bytes,
    where: str,
    *,
    require_digest: bool,
    shape: Any = dict[str, Any],
    advice: str = RESTORE,
) -> dict[str, Any]:
    """The content of a JSON file of a run, read from `where` and checked against `shape`.

    Raises DamagedRunError, with `advice`, if it is damaged.
    """
    try:
        value = parse_json(data.decode(), max_depth=MAX_OWN_DEPTH)
    except ValueError as error:
        raise DamagedRunError(f"{where}: is damaged: not valid JSON ({error}); {advice}") from None
    found = _unsealed(value, where, require_digest=require_digest, advice=advice)
    require_valid(invalid_fields(shape, found), where, advice)
    return found


def require_valid(wrong: Sequence[str], where: str, advice: str = RESTORE) -> None:
    """Raises DamagedRunError if any fields of a JSON file are invalid; `wrong` are their names."""
    if wrong:
        raise DamagedRunError(
            f"{where}: is damaged: missing or of the wrong type: {', '.join(wrong)}; {advice}"
        )


def names_file(kind: str, names: Sequence[str]) -> tuple[str, bytes]:
    """Name (`KIND-DIGEST.txt`) and content of a file with a list of names, one per line."""
    data = "".join(f"{name}\n" for name in names).encode()
    return f"{kind}-{hashlib.sha256(data).hexdigest()[:32]}.txt", data


def read_names(store: Store, file: str) -> list[str]:
    """The names in a file of `names_file`.

    Raises DamagedRunError if they do not match its digest.
    """
    data = read_required(store, file)
    if hashlib.sha256(data).hexdigest()[:32] not in file:
        raise DamagedRunError(
            f"{store.uri_of(file)}: is damaged: its content does not match the digest in its name; "
            f"{RESTORE}"
        )
    return data.decode().splitlines()


def read_required(store: Store, name: str) -> bytes:
    """The bytes of a required file of a run. Raises DamagedRunError when it is absent."""
    try:
        return store.read(name)
    except MissingFileError:
        raise DamagedRunError(f"{store.uri_of(name)}: is missing; {RESTORE}") from None


def _digest(value: Mapping[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
