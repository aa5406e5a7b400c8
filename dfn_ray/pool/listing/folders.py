"""Rules for walking below a pool's folder: the folders to enter and those to skip."""

from __future__ import annotations

import os
from collections.abc import Callable

from dfn_ray.errors import InputError, StorageAccessError
from dfn_ray.pool.listing.patterns import Glob, State, is_hidden
from dfn_ray.pool.listing.remarks import Remark, Remarks
from dfn_ray.storage import Folder, link_to_nothing, scan, walk
from dfn_ray.uris import utf8_safe

_RUN = "run.json"


class Descent:
    """A walk along a glob below a folder; calls `take` with every folder and the glob's state.

    Hidden folders and runs are entered only if the glob names them, or what it selects in them, in
    full; links that lead up are not followed, and dangling links cannot be. Each of these yields
    a remark. Links to nothing that match the glob and are named like files by `is_file` are left to
    `take`. Raises InputError if the folder itself is a run, StorageAccessError if the glob names a
    dangling link in full as a folder.
    """

    def __init__(
        self,
        glob: Glob,
        remarks: Remarks,
        take: Callable[[Folder, State], None],
        *,
        is_file: Callable[[str], bool],
    ) -> None:
        self._glob, self._remarks, self._take, self._is_file = glob, remarks, take, is_file

    def below(self, uri: str) -> bool:
        """Walks all folders that can contain matches; returns False if the folder is absent."""
        is_there = False

        def visit(folder: Folder, state: State | None) -> dict[str, State | None]:
            nonlocal is_there
            if state is None:
                is_there = True
                reject_run(folder)
                state = self._glob.start
            return dict(self.visit(folder, state))

        walk(uri, visit, None)
        return is_there

    def visit(self, folder: Folder, state: State) -> dict[str, State]:
        """Takes a folder; returns the names of its subfolders to enter, with the glob's states."""
        if _RUN in folder.files:
            state = self._glob.literal(state)
            if not state:
                self._remarks.add(Remark.RUN, folder.uri)
                return {}
        else:
            self._take(folder, state)
        entered: dict[str, State] = {}
        for name in folder.folders:
            if inner := self._glob.advance(state, name):
                entered[name] = inner
            elif is_hidden(name) and self._glob.advance(state, name, hidden=True):
                self._remarks.add(Remark.HIDDEN_FOLDER, f"{folder.uri}/{name}")
        for name in folder.loops:
            if self._glob.advance(state, name):
                self._remarks.add(Remark.LOOP, f"{folder.uri}/{name}")
        for name in folder.dangling:
            self._check_dangling(folder, state, name)
        return entered

    def _check_dangling(self, folder: Folder, state: State, name: str) -> None:
        """Adds a remark for a dangling link that may have been a folder's."""
        if self._is_file(name) and self._glob.matches_file(state, name):
            return
        link = f"{folder.uri}/{name}"
        if self._glob.advance(self._glob.literal(state), name):
            raise dangling_link(link)
        if self._glob.advance(state, name):
            self._remarks.add(Remark.DANGLING_LINK, f"{link}, a link to {os.path.realpath(link)}")


def reject_run(folder: Folder) -> None:
    """Raises InputError if a folder to be read as a pool is a run."""
    if _RUN in folder.files:
        raise InputError(
            f"pool.uri: {folder.uri} is a run (it contains {_RUN}); use {folder.uri}/subset to "
            "read its subset"
        )


def reject_dangling(uri: str) -> None:
    """Raises StorageAccessError if a URI is absent because of a dangling link on its path."""
    if (link := link_to_nothing(uri)) is not None:
        raise dangling_link(link)


def dangling_link(link: str) -> StorageAccessError:
    """The error for a dangling link in place of a folder."""
    return StorageAccessError(
        f"{utf8_safe(link)}: a link to {utf8_safe(os.path.realpath(link))}, which does not exist; "
        "mount the disk that it points to, or remove the link"
    )


def class_names(root: Folder) -> list[str]:
    """The names of the class folders in a folder, in the order of torchvision's ImageFolder.

    It counts every folder, including hidden ones and links, sorted by code points. Raises
    StorageAccessError for a dangling link: if it is a class, all later ones would be renumbered.
    """
    if root.dangling:
        raise dangling_link(f"{root.uri}/{root.dangling[0]}")
    return sorted((*root.folders, *root.loops))


def scan_root(uri: str) -> Folder | None:
    """The folder at a URI, to be read as a pool; None if absent. Raises InputError for a run."""
    folder = scan(uri)
    if folder is not None:
        reject_run(folder)
    return folder
