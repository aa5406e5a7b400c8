"""Contents of folders and trees.

A folder that cannot be listed is an error, never taken as empty.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from dfn_ray.storage.filesystems import filesystem, is_local, storage_errors
from dfn_ray.storage.store import File, version_in
from dfn_ray.untrusted.regular_files import is_finite_file

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Folder:
    """The direct contents of a folder. Links are listed as their targets."""

    uri: str
    """The path by which it was reached: the given URI of the root, then names."""
    real: str
    """The folder with all links resolved; `uri` on an object store."""
    files: Mapping[str, File]
    """By name, in sorted order."""
    folders: tuple[str, ...] = ()
    """Names, sorted."""
    links: frozenset[str] = frozenset()
    """Names of files and folders that are links."""
    dangling: tuple[str, ...] = ()
    """Names of dangling links."""
    loops: tuple[str, ...] = ()
    """Names of links to this folder or a folder above it, which are not followed."""
    special: tuple[str, ...] = ()
    """Names of pipes, sockets, devices and kernel files, which cannot be read to an end."""


def scan(uri: str) -> Folder | None:
    """The folder at a URI; None if absent. Raises StorageError if it cannot be listed."""
    if is_local(uri):
        path = _path(uri)
        return _scan_local(uri.rstrip("/"), path, os.path.realpath(path), ())
    fs = filesystem(uri)
    with storage_errors(uri, "list"):
        root = fs._strip_protocol(uri).rstrip("/")
        fs.invalidate_cache(root)  # another process may have written since
        try:
            entries = fs.ls(root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
    own = uri.rstrip("/")
    named = [(entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in entries]
    return Folder(
        own,
        own,
        {
            name: _file(f"{own}/{name}", entry)
            for name, entry in sorted(named, key=lambda pair: pair[0])
            if entry["type"] == "file" and entry["name"].rstrip("/") != root
        },
        tuple(sorted(name for name, entry in named if entry["type"] == "directory")),
    )


def walk(uri: str, visit: Callable[[Folder, State], Mapping[str, State]], state: State) -> None:
    """Visits a folder and the folders below it that `visit` selects, once per path.

    `visit` is passed a folder and its state, and returns the names of the subfolders to enter, with
    their states. Links to folders are followed, except to a folder that contains them. Absent
    folders, and those that vanish meanwhile, are skipped. Raises StorageError, naming the folder,
    if a selected one cannot be listed.
    """
    if is_local(uri):
        _walk_local(uri, visit, state)
        return
    found = _found(uri) if _lists_trees(uri) else None
    pending = [("", state)]
    while pending:
        prefix, state = pending.pop()
        own = f"{uri.rstrip('/')}/{prefix}"[:-1]
        if found is None:
            folder = scan(own)
        else:
            folder = found[prefix].listed(own) if prefix in found else None
        if folder is None:
            continue
        entered = visit(folder, state)
        pending += [(f"{prefix}{name}/", inner) for name, inner in entered.items()]


def files_below(uri: str) -> list[File]:
    """All files below a folder, at any depth, sorted; empty if absent. URIs begin with `uri`."""
    files: list[File] = []

    def visit(folder: Folder, _: None) -> dict[str, None]:
        files.extend(folder.files.values())
        return dict.fromkeys(folder.folders)

    walk(uri, visit, None)
    return sorted(files, key=lambda file: file.uri)


def first_dangling_link(uri: str) -> str | None:
    """The first dangling link on a local path, its last name included; None without one."""
    if not is_local(uri):
        return None
    path = _path(uri)
    ends = (index for index, character in enumerate(f"{path}/") if character == "/" and index)
    return next((path[:end] for end in ends if _is_dangling(path[:end])), None)


def _is_dangling(path: str) -> bool:
    if not os.path.islink(path):
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # the target exists but cannot be examined
        return False
    return False


def _walk_local(
    uri: str, visit: Callable[[Folder, State], Mapping[str, State]], state: State
) -> None:
    path = _path(uri)
    # The chain contains the real folders from which links were followed.
    pending: list[tuple[str, str, str, tuple[str, ...], State]] = [
        (uri.rstrip("/"), path, os.path.realpath(path), (), state)
    ]
    while pending:
        here, path, real, chain, state = pending.pop()
        folder = _scan_local(here, path, real, chain)
        if folder is None:
            continue
        for name, inner in visit(folder, state).items():
            below = f"{path}/{name}"
            if name in folder.links:
                leads_to, followed = os.path.realpath(below), (*chain, real)
            else:
                leads_to, followed = f"{real.rstrip('/')}/{name}", chain
            pending.append((f"{here}/{name}", below, leads_to, followed, inner))


def _scan_local(uri: str, path: str, real: str, chain: tuple[str, ...]) -> Folder | None:
    files: dict[str, File] = {}
    kinds: dict[str, list[str]] = {"folders": [], "dangling": [], "loops": [], "special": []}
    links: set[str] = set()
    with storage_errors(uri, "list"):
        try:
            with os.scandir(path or "/") as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_symlink():
                        links.add(name)
                    kind, size = _kind(entry, real, chain)
                    if kind == "files":
                        files[name] = File(f"{uri}/{name}", size)
                    elif kind in kinds:
                        kinds[kind].append(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
    lists = {kind: tuple(sorted(names)) for kind, names in kinds.items()}
    return Folder(uri, real, dict(sorted(files.items())), links=frozenset(links), **lists)


def _kind(entry: os.DirEntry[str], real: str, chain: tuple[str, ...]) -> tuple[str, int]:
    """The field of `Folder` for an entry, and its size; "" if it vanished since the listing."""
    try:
        if entry.is_dir():
            up = entry.is_symlink() and _leads_up(entry.path, (*chain, real))
            return ("loops" if up else "folders"), 0
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        # A link through a file raises the latter, which the caller would read as the folder being
        # no folder.
        return ("dangling" if entry.is_symlink() else ""), 0
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "loops", 0
    return ("files", status.st_size) if is_finite_file(status) else ("special", 0)


def _leads_up(link: str, chain: Iterable[str]) -> bool:
    """True if a link leads to one of the real folders in `chain`, or to one above it."""
    target = os.path.realpath(link).rstrip("/") + "/"
    return any(f"{folder.rstrip('/')}/".startswith(target) for folder in chain)


@dataclass(slots=True)
class _Found:
    """A folder of an object store while its entries are collected."""

    files: dict[str, Any] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def listed(self, uri: str) -> Folder:
        files = {name: _file(f"{uri}/{name}", self.files[name]) for name in sorted(self.files)}
        return Folder(uri, uri, files, tuple(sorted(self.folders)))


def _found(uri: str) -> dict[str, _Found]:
    """The folders below a URI, by relative path with a trailing slash; the URI itself is ""."""
    fs = filesystem(uri)
    with storage_errors(uri, "list"):
        root = fs._strip_protocol(uri).rstrip("/")
        fs.invalidate_cache(root)
        try:
            found = fs.find(root, detail=True)
        except FileNotFoundError:
            return {}
    folders: dict[str, _Found] = {}
    for path, info in found.items():
        if path == root:
            continue
        name = path[len(root) + 1 :]
        end = name.rfind("/") + 1
        prefix = name[:end]
        if prefix not in folders:
            _add(folders, prefix)
        folders[prefix].files[name[end:]] = info
    return folders


def _add(folders: dict[str, _Found], prefix: str) -> None:
    """Adds a folder and its parents."""
    folders[prefix] = _Found()
    while prefix:
        end = prefix.rfind("/", 0, -1) + 1
        parent, name = prefix[:end], prefix[end:-1]
        known = parent in folders
        folders.setdefault(parent, _Found()).folders.add(name)
        if known:
            return
        prefix = parent


def _lists_trees(uri: str) -> bool:
    """True for a store that lists whole trees itself: fsspec's walk skips unlistable folders."""
    fs = filesystem(uri)
    own = fs._find if isinstance(fs, AsyncFileSystem) else fs.find
    generic = (AsyncFileSystem._find, AbstractFileSystem.find)
    return getattr(own, "__func__", own) not in generic


def _file(uri: str, info: Mapping[str, Any]) -> File:
    return File(uri, int(info["size"] or 0), version_in(info))


def _path(uri: str) -> str:
    return filesystem(uri)._strip_protocol(uri).rstrip("/")
