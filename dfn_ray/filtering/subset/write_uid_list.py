"""The sorted uid list of a subset, `subset_uids.npy`, in one pass and bounded memory.

DataComp-XL's is 30 GB: stretches of it are sorted in memory, stored in the run and merged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np

from dfn_ray.errors import DamagedRunError
from dfn_ray.run import SELECTION, UID_LIST, Run
from dfn_ray.uids.records import UID_DTYPE, npy_header

STRETCH_UIDS = 1 << 25
"""Uids sorted in memory at a time: 512 MiB, and as much again during the sort."""
BLOCK_UIDS = 1 << 17
"""Uids in memory per stretch during the merge: 2 MiB."""
_DIGEST = "uid_list_sha256"
SPILL = "spill"
"""Folder of a run with the stretches of each attempt, removed once the list is written."""


def write_uid_list(run: Run, name: str, uids: Iterable[np.ndarray], count: int) -> dict[str, Any]:
    """Writes the sorted list of `count` uids to the file `name` of a run.

    `uids` yields all of them, as UID_DTYPE arrays in any order and grouping. Returns the fields for
    `selection.json`: the number of uids that repeat another one, and the digest of the file.
    """
    stretches = _stretches(uids)
    first = next(stretches, np.empty(0, UID_DTYPE))
    second = next(stretches, None)
    if second is None:
        fields = _write(run, name, [first], count)
        remove_spilled(run)
        return fields
    files = [_spill(run, stretch) for stretch in (first, second)]
    files += [_spill(run, stretch) for stretch in stretches]
    return merge_spilled(run, name, files, count)


def spill_sorted(run: Run, uids: Iterable[np.ndarray]) -> list[str]:
    """Writes uids as sorted stretches into the run, for `merge_spilled`; returns the file names."""
    return [_spill(run, stretch) for stretch in _stretches(uids)]


def merge_spilled(run: Run, name: str, files: Sequence[str], count: int) -> dict[str, Any]:
    """Merges files of `spill_sorted` into the sorted uid list and removes them.

    Returns the same as `write_uid_list`.
    """
    with ExitStack() as opened:
        sources = [opened.enter_context(run.store.open(file)) for file in files]
        written = _write(run, name, merged(sources), count)
    remove_spilled(run)
    return written


def uid_list_pieces(run: Run, selection: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes of the uid list of a finished run.

    Raises DamagedRunError after the last piece if their digest is wrong.
    """
    digest = hashlib.sha256()
    with run.open(UID_LIST) as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
            yield piece
    if selection.get(_DIGEST, digest.hexdigest()) != digest.hexdigest():
        raise DamagedRunError(
            f"{run.store.uri_of(UID_LIST)}: is damaged or was altered: it does not match the "
            f"digest in {SELECTION}; restore it from a copy, or materialize the selection again"
        )


def _write(run: Run, name: str, pieces: Iterable[np.ndarray], count: int) -> dict[str, Any]:
    repeated, digest = _RepeatCounter(), hashlib.sha256()

    def written() -> Iterator[bytes]:
        for piece in _with_header(count, (repeated.count_in(piece).tobytes() for piece in pieces)):
            digest.update(piece)
            yield piece

    run.write_stream(name, written())
    return {"repeated_uids": repeated.count, _DIGEST: digest.hexdigest()}


def _spill(run: Run, stretch: np.ndarray) -> str:
    # Named by its content, so that a task that runs twice writes one file.
    data = stretch.tobytes()
    file = f"{_folder(run)}/{hashlib.blake2b(data, digest_size=16).hexdigest()}.bin"
    run.write(file, data)
    return file


def remove_spilled(run: Run) -> None:
    """Removes the stretches of this attempt and those left by earlier ones, never by later ones."""
    for folder in run.store.child(SPILL).names():
        number = folder.removesuffix("/")
        if number.isdecimal() and int(number) <= run.attempt.number:
            run.delete_folder(f"{SPILL}/{number}")


def _folder(run: Run) -> str:
    return f"{SPILL}/{run.attempt.number:06d}"


def merged(sources: Sequence[IO[bytes]]) -> Iterator[np.ndarray]:
    """The uids of several sorted files, merged in sorted order, in pieces."""
    blocks = [_block(source) for source in sources]
    while any(len(block) for block in blocks):
        # Uids that are not above the last uid of any block can be yielded: none smaller can follow.
        bound = min(_keys(block[-1:])[0] for block in blocks if len(block))
        cuts = [int(np.searchsorted(_keys(block), bound, "right")) for block in blocks]
        yield _sorted(np.concatenate([b[:cut] for b, cut in zip(blocks, cuts, strict=True)]))
        blocks = [
            block[cut:] if cut < len(block) else _block(source)
            for block, cut, source in zip(blocks, cuts, sources, strict=True)
        ]


class _RepeatCounter:
    """Counts uids equal to the one before, in a sorted list that passes through."""

    def __init__(self) -> None:
        self.count = 0
        self._last = np.empty(0, UID_DTYPE)

    def count_in(self, uids: np.ndarray) -> np.ndarray:
        """Counts the repeats in the next piece of the list; returns the piece."""
        both = np.concatenate([self._last, uids])
        self.count += int((both[1:] == both[:-1]).sum())
        self._last = both[-1:]
        return uids


def _stretches(uids: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """All uids in sorted arrays of STRETCH_UIDS or slightly more."""
    held: list[np.ndarray] = []
    count = 0
    for some in uids:
        held.append(some)
        count += len(some)
        if count >= STRETCH_UIDS:
            yield _sorted(np.concatenate(held))
            held, count = [], 0
    if count:
        yield _sorted(np.concatenate(held))


def _with_header(count: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield npy_header(count)
    yield from pieces


def _sorted(uids: np.ndarray) -> np.ndarray:
    return uids[np.lexsort((uids["f1"], uids["f0"]))]


def _block(source: IO[bytes]) -> np.ndarray:
    return np.frombuffer(source.read(BLOCK_UIDS * UID_DTYPE.itemsize), UID_DTYPE)


def _keys(uids: np.ndarray) -> np.ndarray:
    """Values in the sort order of the uids: their 16 bytes, most significant first."""
    words = np.stack([uids["f0"], uids["f1"]], axis=1).astype(">u8")
    return np.frombuffer(words.tobytes(), "S16")
