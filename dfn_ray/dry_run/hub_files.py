"""Names and configs, never weights, of a repository on the Hugging Face hub, within 10 s.

The hub's own client is not used: its waits and retries have no upper bound, and it sends additional
requests first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from huggingface_hub import constants, get_token, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, validate_repo_id

from dfn_ray.dry_run.finding import NotCheckedError
from dfn_ray.errors import InputError
from dfn_ray.network.layouts import Layout
from dfn_ray.storage.retries import call_within
from dfn_ray.untrusted.json_text import parse_json

TIME_LIMIT_S = 10.0
"""For all requests about one repository together."""
MAX_BYTES = 16 * 2**20
"""Upper bound on a file list or a config; larger answers are rejected."""


@dataclass(frozen=True)
class Repository:
    """A model repository, as far as it is known."""

    sizes: Mapping[str, int]
    """Names of its files and their bytes; for a cached repository, of the cached files."""
    read: Callable[[str], bytes]
    """The content of a small file. Raises InputError and NotCheckedError."""
    is_cached: bool
    """True if the hub was unreachable and this describes its cache on this machine."""

    @property
    def names(self) -> frozenset[str]:
        """Names of its files."""
        return frozenset(self.sizes)

    def too_large_among(self, names: Collection[str]) -> list[str]:
        """Those of the names whose files are too large to be downloaded for a dry run."""
        return [name for name in names if self.sizes.get(name, 0) > MAX_BYTES]


class _UnreachableError(Exception):
    """The hub does not answer, or its answer is unusable."""


def find_repository(model_id: str, setting: str) -> Repository:
    """The repository with this id, from the hub or from its cache.

    Raises InputError when the hub does not have it or denies access, NotCheckedError when the hub
    is unreachable and nothing is cached.
    """
    try:
        validate_repo_id(model_id)
    except HFValidationError as error:
        raise InputError(
            f"{setting}: need hf-hub:org/repo, got 'hf-hub:{model_id}': {error}"
        ) from None
    try:
        return _online(model_id, setting)
    except _UnreachableError as error:
        cached = _cached(model_id)
        if cached is None:
            raise NotCheckedError(str(error)) from None
        return cached


def _online(model_id: str, setting: str) -> Repository:
    if constants.HF_HUB_OFFLINE:
        raise _UnreachableError("offline (HF_HUB_OFFLINE is set)")
    deadline = time.monotonic() + TIME_LIMIT_S
    where = f"{setting}: hf-hub:{model_id}"
    data = _get(f"{constants.ENDPOINT}/api/models/{model_id}?blobs=true", deadline, where)
    try:
        values: Any = parse_json(data.decode())
        sizes = {str(file["rfilename"]): int(file["size"]) for file in values["siblings"]}
    except (ValueError, KeyError, TypeError):
        raise _UnreachableError(
            f"{constants.ENDPOINT} does not respond like a Hugging Face hub"
        ) from None

    def read(name: str) -> bytes:
        try:
            return _get(f"{constants.ENDPOINT}/{model_id}/resolve/main/{name}", deadline, where)
        except _UnreachableError as error:
            raise NotCheckedError(str(error)) from None

    return Repository(sizes, read, is_cached=False)


def _get(url: str, deadline: float, where: str) -> bytes:
    """The body of a response.

    Raises InputError for what the hub rejects, _UnreachableError for failures that may be
    transient. The request runs on a thread that is abandoned at the deadline: resolving a name and
    trying each of a server's addresses can take longer than any timeout of the request.
    """
    left = max(0.1, deadline - time.monotonic())
    try:
        return call_within(lambda: _answered(url, deadline, where), left)
    except TimeoutError:
        raise _UnreachableError(f"no response within {TIME_LIMIT_S:.0f} s") from None


def _answered(url: str, deadline: float, where: str) -> bytes:
    left = max(0.1, deadline - time.monotonic())
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with requests.get(
            url, headers=headers, timeout=(left / 2, left / 2), stream=True
        ) as answer:
            _require_ok(answer.status_code, where)
            body = bytearray()
            for piece in answer.iter_content(2**16):
                body += piece
                if len(body) > MAX_BYTES:
                    raise InputError(f"{where}: {url} is larger than {MAX_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise _UnreachableError(f"no response within {TIME_LIMIT_S:.0f} s")
            return bytes(body)
    except requests.Timeout:
        raise _UnreachableError(f"no response within {TIME_LIMIT_S:.0f} s") from None
    except requests.RequestException:
        raise _UnreachableError("no internet connection") from None


def _require_ok(status: int, where: str) -> None:
    if status in (401, 404):
        raise InputError(
            f"{where}: the hub has no such repository or file, or it is private (HTTP {status}). "
            "Check the spelling; a private repository needs HF_TOKEN"
        )
    if status == 403:
        raise InputError(
            f"{where}: the hub denies access (HTTP 403). Accept the repository's terms on its page "
            "and set HF_TOKEN"
        )
    if status != 200:
        raise _UnreachableError(f"the hub answers HTTP {status}")


def _cached(model_id: str) -> Repository | None:
    """The newest snapshot in the hub's cache on this machine; None if no config is cached."""
    for layout in Layout:
        path = try_to_load_from_cache(model_id, layout.value)
        if isinstance(path, str):
            return _of_folder(Path(path).parent)
    return None


def _of_folder(folder: Path) -> Repository:
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    return Repository(sizes, lambda name: (folder / name).read_bytes(), is_cached=True)
