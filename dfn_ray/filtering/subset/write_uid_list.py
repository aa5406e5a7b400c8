"""The sorted uid list of a subset, `subset_uids.npy`, in one pass and bounded memory.

DataComp-XL's is 30 GB: stretches of it are sorted in memory, kept beside the run and merged.
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
"""Uids sorted in memory at a time: 512 MiB, and as much again while they are sorted."""
BLOCK_UIDS = 1 << 17
"""Uids held of each stretch while they are merged: 2 MiB."""
_DIGEST = "uid_list_sha256"
SPILL = "spill"
"""Folder of a run with the stretches of each attempt, until its list is written."""


def write_uid_list(run: Run, name: str, uids: Iterable[np.ndarray], count: int) -> dict[str, Any]:
    """Write the sorted list of `count` uids to the file `name` of a run; returns what `selection.json` says of it.

    That is how many of them repeat another one, and the digest of the file.

    `uids` gives them all, as UID_DTYPE arrays in any order and grouping.
    """
    stretches = _stretches(uids)
    first = next(stretches, np.empty(0, UID_DTYPE))
    second = next(stretches, None)
    if second is None:
        repeated = _write(run, name, [first], count)
        remove_spilled(run)
        return repeated
    files = [_spill(run, stretch) for stretch in (first, second)]
    files += [_spill(run, stretch) for stretch in stretches]
    return merge_spilled(run, name, files, count)


def spill_sorted(run: Run, uids: Iterable[np.ndarray]) -> list[str]:
    """Write uids in sorted stretches beside the run, for `merge_spilled`; returns the names of the files."""
    return [_spill(run, stretch) for stretch in _stretches(uids)]


def merge_spilled(run: Run, name: str, files: Sequence[str], count: int) -> dict[str, Any]:
    """Write the sorted list of the uids in files of `spill_sorted`, and remove these; see `write_uid_list`."""
    with ExitStack() as opened:
        sources = [opened.enter_context(run.store.open(file)) for file in files]
        written = _write(run, name, merged(sources), count)
    remove_spilled(run)
    return written


def uid_list_pieces(run: Run, selection: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes of the uid list of a finished run. Raises DamagedRunError behind them if they are not what was written."""
    digest = hashlib.sha256()
    with run.open(UID_LIST) as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
            yield piece
    if selection.get(_DIGEST, digest.hexdigest()) != digest.hexdigest():
        raise DamagedRunError(
            f"{run.store.uri_of(UID_LIST)}: is damaged or was altered: it is not what the digest in {SELECTION} says; "
            "restore it from a copy, or materialize the selection anew"
        )


def _write(run: Run, name: str, pieces: Iterable[np.ndarray], count: int) -> dict[str, Any]:
    repeated, digest = _RepeatCounter(), hashlib.sha256()

    def written() -> Iterator[bytes]:
        for piece in _with_header(count, (repeated.seen(piece).tobytes() for piece in pieces)):
            digest.update(piece)
            yield piece

    run.write_stream(name, written())
    return {"repeated_uids": repeated.count, _DIGEST: digest.hexdigest()}


def _spill(run: Run, stretch: np.ndarray) -> str:
    # Named by its content: a task that runs twice writes it once.
    data = stretch.tobytes()
    file = f"{_folder(run)}/{hashlib.blake2b(data, digest_size=16).hexdigest()}.bin"
    run.write(file, data)
    return file


def remove_spilled(run: Run) -> None:
    """Remove the stretches of this attempt, and those of earlier ones that a crash has left; never those of a later one."""
    for folder in run.store.child(SPILL).names():
        number = folder.removesuffix("/")
        if number.isdecimal() and int(number) <= run.attempt.number:
            run.delete_folder(f"{SPILL}/{number}")


def _folder(run: Run) -> str:
    return f"{SPILL}/{run.attempt.number:06d}"


def merged(sources: Sequence[IO[bytes]]) -> Iterator[np.ndarray]:
    """The uids of several sorted files in their order, a piece at a time."""
    blocks = [_block(source) for source in sources]
    while any(len(block) for block in blocks):
        # All that is not above the last uid of any block that may have more behind it can be passed on.
        bound = min(_keys(block[-1:])[0] for block in blocks if len(block))
        cuts = [int(np.searchsorted(_keys(block), bound, "right")) for block in blocks]
        yield _sorted(np.concatenate([b[:cut] for b, cut in zip(blocks, cuts, strict=True)]))
        blocks = [
            block[cut:] if cut < len(block) else _block(source)
            for block, cut, source in zip(blocks, cuts, sources, strict=True)
        ]


class _RepeatCounter:
    """Counts, in a sorted list that passes through, the uids that are equal to the one before."""

    def __init__(self) -> None:
        self.count = 0
        self._last = np.empty(0, UID_DTYPE)

    def seen(self, uids: np.ndarray) -> np.ndarray:
        both = np.concatenate([self._last, uids])
        self.count += int((both[1:] == both[:-1]).sum())
        self._last = both[-1:]
        return uids


def _stretches(uids: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """All uids in sorted arrays of STRETCH_UIDS or a little more."""
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
    """Values that sort as the uids do: their 16 bytes, the most significant first."""
    words = np.stack([uids["f0"], uids["f1"]], axis=1).astype(">u8")
    return np.frombuffer(words.tobytes(), "S16")
