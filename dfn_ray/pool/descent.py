"""The rules for what lies below a pool's folder: which folders are entered, and which are not."""

from __future__ import annotations

from collections.abc import Callable

from dfn_ray.errors import InputError
from dfn_ray.pool.patterns import Glob, State, is_hidden
from dfn_ray.pool.remarks import Remark, Remarks
from dfn_ray.storage import Folder, scan, walk

_RUN = "run.json"


class Descent:
    """A walk along a glob below a folder. Every folder on the way is handed to `take` with the glob's state there.

    Hidden folders and runs are not entered unless the glob names them, or what it wants in them, in full; links that lead
    up are not followed. Each of these is remarked on. Raises InputError when the folder itself is a run.
    """

    def __init__(self, glob: Glob, remarks: Remarks, take: Callable[[Folder, State], None]) -> None:
        self._glob, self._remarks, self._take = glob, remarks, take

    def below(self, uri: str) -> None:
        """Walk all that can match."""

        def visit(folder: Folder, state: State | None) -> dict[str, State | None]:
            if state is None:
                refuse_run(folder)
                state = self._glob.start
            return dict(self.visit(folder, state))

        walk(uri, visit, None)

    def visit(self, folder: Folder, state: State) -> dict[str, State]:
        """Take a folder; the names of the folders in it to enter, with the glob's state there."""
        if _RUN in folder.files:
            state = self._glob.named(state)
            if not state:
                self._remarks.add(Remark.RUN, folder.uri)
                return {}
        else:
            self._take(folder, state)
        entered: dict[str, State] = {}
        for name in folder.folders:
            if inner := self._glob.enter(state, name):
                entered[name] = inner
            elif is_hidden(name) and self._glob.enter(state, name, hidden=True):
                self._remarks.add(Remark.HIDDEN_FOLDER, f"{folder.uri}/{name}")
        for name in folder.loops:
            if self._glob.enter(state, name):
                self._remarks.add(Remark.LOOP, f"{folder.uri}/{name}")
        return entered


def refuse_run(folder: Folder) -> None:
    """Raise InputError when a folder that is to be read as a pool is a run."""
    if _RUN in folder.files:
        raise InputError(
            f"pool.uri: {folder.uri} is a run (it holds {_RUN}); name {folder.uri}/subset to read its subset"
        )


def class_names(root: Folder) -> list[str]:
    """The names of the class folders in a folder, in the order of their numbers: torchvision's ImageFolder's.

    It takes every folder, hidden ones and links among them, in the order of their code points.
    """
    return sorted((*root.folders, *root.loops))


def scanned_root(uri: str) -> Folder | None:
    """The folder at a URI if it is one that may be a pool's; None when it is absent. Raises InputError for a run."""
    folder = scan(uri)
    if folder is not None:
        refuse_run(folder)
    return folder
