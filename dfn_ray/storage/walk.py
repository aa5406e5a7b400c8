"""What is in folders: every folder is listed once, and one that cannot be listed is an error, never an empty one."""

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
    """What is directly in a folder. Links stand for what they lead to."""

    uri: str
    """As it was reached: the URI of the root as given, then names."""
    real: str
    """The folder without any link on the way; `uri` on an object store."""
    files: Mapping[str, File]
    """By name, in sorted order."""
    folders: tuple[str, ...] = ()
    """Names, sorted."""
    links: frozenset[str] = frozenset()
    """Names of files and folders that are links."""
    dangling: tuple[str, ...] = ()
    """Names of links that lead to nothing."""
    loops: tuple[str, ...] = ()
    """Names of links to this folder or one above it, which are not followed."""
    special: tuple[str, ...] = ()
    """Names of pipes, sockets, devices and the kernel's files, which are no files that could be read to their end."""


def scan(uri: str) -> Folder | None:
    """The folder at a URI, None when no folder is there. Raises StorageError, naming it, when it cannot be listed."""
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
    """Visit a folder and the folders below it that `visit` names, each once by the path it is reached by.

    `visit` gets a folder and its state, and returns the names of the folders in it to enter, with theirs. Links to folders
    are followed, but not up to a folder that they lie in. An absent folder is not visited, nor one that vanishes meanwhile.
    Raises StorageError, naming the folder, when one that is to be entered cannot be listed.
    """
    if is_local(uri):
        _walk_local(uri, visit, state)
        return
    found = _found(uri) if _finds_at_once(uri) else None
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
    """All files below a folder, at any depth, by name; an absent folder has none. URIs begin with `uri` as given."""
    files: list[File] = []

    def visit(folder: Folder, _: None) -> dict[str, None]:
        files.extend(folder.files.values())
        return dict.fromkeys(folder.folders)

    walk(uri, visit, None)
    return sorted(files, key=lambda file: file.uri)


def link_to_nothing(uri: str) -> str | None:
    """The first link on a local path, its last name counted, that leads to nothing; None when there is none."""
    if not is_local(uri):
        return None
    path = _path(uri)
    ends = (index for index, character in enumerate(f"{path}/") if character == "/" and index)
    return next((path[:end] for end in ends if _leads_to_nothing(path[:end])), None)


def _leads_to_nothing(path: str) -> bool:
    if not os.path.islink(path):
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # something is there, which cannot be looked at
        return False
    return False


def _walk_local(
    uri: str, visit: Callable[[Folder, State], Mapping[str, State]], state: State
) -> None:
    path = _path(uri)
    # The chain holds the real folders from which links were followed.
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
    """The field of `Folder` that an entry belongs to, and its size; "" when it vanished since its folder was listed."""
    try:
        if entry.is_dir():
            up = entry.is_symlink() and _leads_up(entry.path, (*chain, real))
            return ("loops" if up else "folders"), 0
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        # A link that leads through a file gives the latter, which for its folder would mean that it is none.
        return ("dangling" if entry.is_symlink() else ""), 0
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return "loops", 0
    return ("files", status.st_size) if is_finite_file(status) else ("special", 0)


def _leads_up(link: str, chain: Iterable[str]) -> bool:
    """True when a link leads to one of some real folders, or to one above it."""
    target = os.path.realpath(link).rstrip("/") + "/"
    return any(f"{folder.rstrip('/')}/".startswith(target) for folder in chain)


@dataclass(slots=True)
class _Found:
    """A folder of an object store while its parts are gathered."""

    files: dict[str, Any] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def listed(self, uri: str) -> Folder:
        files = {name: _file(f"{uri}/{name}", self.files[name]) for name in sorted(self.files)}
        return Folder(uri, uri, files, tuple(sorted(self.folders)))


def _found(uri: str) -> dict[str, _Found]:
    """The folders below a URI, by their path from it with a slash at the end; the one at the URI is the empty path."""
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
    """Make a folder and those it lies in."""
    folders[prefix] = _Found()
    while prefix:
        end = prefix.rfind("/", 0, -1) + 1
        parent, name = prefix[:end], prefix[end:-1]
        known = parent in folders
        folders.setdefault(parent, _Found()).folders.add(name)
        if known:
            return
        prefix = parent


def _finds_at_once(uri: str) -> bool:
    """True for a store that lists a whole tree by itself. Where fsspec walks instead, it passes over what it cannot list."""
    fs = filesystem(uri)
    own = fs._find if isinstance(fs, AsyncFileSystem) else fs.find
    generic = (AsyncFileSystem._find, AbstractFileSystem.find)
    return getattr(own, "__func__", own) not in generic


def _file(uri: str, info: Mapping[str, Any]) -> File:
    return File(uri, int(info["size"] or 0), version_in(info))


def _path(uri: str) -> str:
    return filesystem(uri)._strip_protocol(uri).rstrip("/")
