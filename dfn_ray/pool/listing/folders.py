"""The rules for what lies below a pool's folder: which folders are entered, and which are not."""

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
    """A walk along a glob below a folder. Every folder on the way is handed to `take` with the glob's state there.

    Hidden folders and runs are not entered unless the glob names them, or what it wants in them, in full; links that lead
    up are not followed, and links to nothing cannot be. Each of these is remarked on. Links to nothing that the glob takes
    and whose name is a file's by `is_file` are left to `take`. Raises InputError when the folder itself is a run,
    StorageAccessError when the glob names a link to nothing as a folder in full.
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
        """Walk all that can match; False when the folder is absent."""
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
        """Take a folder; the names of the folders in it to enter, with the glob's state there."""
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
        """Remark on a link to nothing that may be a folder's."""
        if self._is_file(name) and self._glob.matches_file(state, name):
            return
        link = f"{folder.uri}/{name}"
        if self._glob.advance(self._glob.literal(state), name):
            raise dangling_link(link)
        if self._glob.advance(state, name):
            self._remarks.add(Remark.DANGLING_LINK, f"{link}, a link to {os.path.realpath(link)}")


def reject_run(folder: Folder) -> None:
    """Raise InputError when a folder that is to be read as a pool is a run."""
    if _RUN in folder.files:
        raise InputError(
            f"pool.uri: {folder.uri} is a run (it holds {_RUN}); name {folder.uri}/subset to read its subset"
        )


def reject_dangling(uri: str) -> None:
    """Raise StorageAccessError when nothing is at a URI because it is, or lies below, a link to nothing."""
    if (link := link_to_nothing(uri)) is not None:
        raise dangling_link(link)


def dangling_link(link: str) -> StorageAccessError:
    """The error for a link to nothing in place of a folder."""
    return StorageAccessError(
        f"{utf8_safe(link)}: a link to {utf8_safe(os.path.realpath(link))}, where nothing is; mount the disk that it leads "
        "to, or remove the link"
    )


def class_names(root: Folder) -> list[str]:
    """The names of the class folders in a folder, in the order of their numbers: torchvision's ImageFolder's.

    It takes every folder, hidden ones and links among them, in the order of their code points. Raises StorageAccessError
    for a link to nothing: if it is a class, those behind it would get other numbers.
    """
    if root.dangling:
        raise dangling_link(f"{root.uri}/{root.dangling[0]}")
    return sorted((*root.folders, *root.loops))


def scan_root(uri: str) -> Folder | None:
    """The folder at a URI if it is one that may be a pool's; None when it is absent. Raises InputError for a run."""
    folder = scan(uri)
    if folder is not None:
        reject_run(folder)
    return folder
