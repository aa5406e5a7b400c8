"""The files of a network, in a folder on this machine or in a repository on the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfn_ray.errors import InputError
from dfn_ray.network.download_errors import download_error
from dfn_ray.network.layouts import json_object_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SmallFiles:
    """Configs and tokenizer files of a folder or repository, by name."""

    label: str
    """Its name in messages: `local-dir:PATH` or `hf-hub:ORG/REPO`."""
    names: frozenset[str]
    content_of: Callable[[str], bytes]
    """Returns the bytes of one of the names. Raises InputError or StorageError if it cannot be
    downloaded, see `download_error`, and OSError if it cannot be read."""

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def json_object(self, name: str) -> dict[str, Any]:
        """Returns the JSON object in a file. Raises InputError that names the file."""
        return json_object_of(self.content(name), f"{self.label}/{name}")

    def content(self, name: str) -> bytes:
        """Returns the bytes of a file. Raises InputError that names the file."""
        try:
            return self.content_of(name)
        except OSError as error:
            raise InputError(f"{self.label}/{name}: cannot be read: {error}") from None


@dataclass(frozen=True, kw_only=True)
class NetworkFolder(SmallFiles):
    """All files of a network, weights included; files on the hub are downloaded on first use."""

    path_of: Callable[[str], Path]
    """Returns the local path of one of the names. Raises what `download_error` returns if it cannot
    be downloaded."""


def network_folder(model: str) -> str | None:
    """The folder or URI of a `local-dir:PATH` model, `~` expanded; None for other models."""
    schema, _, folder = model.partition(":")
    return os.path.expanduser(folder) if schema == "local-dir" else None


def local_folder(folder: Path, *, label: str | None = None) -> NetworkFolder:
    """Returns the files in a folder on this machine, without those in its subfolders."""
    try:
        names = frozenset(path.name for path in folder.iterdir() if path.is_file())
    except OSError:
        names = frozenset()
    return NetworkFolder(
        label=label or f"local-dir:{folder}",
        names=names,
        content_of=lambda name: (folder / name).read_bytes(),
        path_of=lambda name: folder / name,
    )


def hub_folder(model_id: str) -> NetworkFolder:
    """Returns the files of a repository on the hub or, without network access, in the hub's cache.

    Raises InputError if the hub does not have it or denies access, StorageError if the hub cannot
    be reached and nothing is cached.
    """
    import huggingface_hub  # noqa: PLC0415  takes 0.3 s, which a dry run of a folder avoids

    label = f"hf-hub:{model_id}"
    try:
        names = huggingface_hub.list_repo_files(model_id)
    except MemoryError:
        raise
    except Exception as error:  # the hub's client and its HTTP library raise any type
        failure = download_error(f"cannot download {label}: {error}", error)
        is_offline = isinstance(error, huggingface_hub.errors.OfflineModeIsEnabled)
        if isinstance(failure, InputError) and not is_offline:
            raise failure from error  # the hub's answer, which an older copy does not change
        try:
            cached = huggingface_hub.snapshot_download(model_id, local_files_only=True)
        except Exception:  # noqa: BLE001  the first error is reported
            raise failure from error
        _LOG.warning("%s: the hub cannot be reached; using the copy in %s", label, cached)
        return local_folder(Path(cached), label=label)

    def path_of(name: str) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(model_id, name))
        except MemoryError:
            raise
        except Exception as error:
            raise download_error(f"cannot download {label}/{name}: {error}", error) from error

    return NetworkFolder(
        label=label,
        names=frozenset(name for name in names if "/" not in name),
        content_of=lambda name: path_of(name).read_bytes(),
        path_of=path_of,
    )
