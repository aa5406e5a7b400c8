"""The end of a tar: its end-of-archive mark, the bytes behind it, and holes of zeros."""

from __future__ import annotations

from collections import Counter

from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar_headers import BLOCK_BYTES, parse_header
from dfn_ray.schema import Note, ShardFault

ZERO_BLOCK = bytes(BLOCK_BYTES)
MAX_ZEROS = 2**20
"""Zeros allowed at the end. Tars are padded to records of 10 KiB; many more are the hole of a
broken download."""
_PADDING_BYTES = 21 * BLOCK_BYTES
"""Maximum of zeros in a tar with records of 10 KiB: the mark of two blocks, and a record less a
block."""
_MAX_TAIL_BYTES = 64 * 2**20
"""Bytes behind an end that are searched for a header: if a hole is in an image, the next header is
no further away than the image is large, and 64 MiB is the default of `pool.max_image_bytes`."""
_STEP_BYTES = 2**20


class TarNotes:
    """Counts by `Note` of oddities in one tar that are not faults.

    An oddity that is met by a second walk is counted once.
    """

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self._counted_to = -1

    def add(self, note: Note, at: int) -> None:
        """Counts an oddity at a byte, unless an earlier walk came as far."""
        if at > self._counted_to:
            self.notes[note] += 1
            self._counted_to = at


def check_end(
    tape: Tape, at: int, block: bytes, notes: TarNotes, *, any_header: bool, zeros: int
) -> None:
    """Checks the end of a walk: `block`, at byte `at` and after `zeros`, is not a header, or empty.

    A single block of zeros is an end only if no complete block follows. After more, a header that
    does not follow at once shows that the zeros are a hole. Raises ShardDamageError if this is no
    valid end.
    """
    if tape.broken is not None:
        # Bytes after the end-of-archive mark are not part of the archive, provided that the mark
        # lies in a complete stream: only its checksum verifies the members before it.
        if any_header and zeros and tape.verified >= at - zeros + BLOCK_BYTES:
            notes.add(Note.BYTES_AFTER_END, at)
            return
        fault, why = tape.broken
        raise ShardDamageError(fault, f"{why}, after {at} bytes of tar")
    if any_header and zeros:
        _check_tail(tape, at, block, notes, zeros=zeros)
        return
    if not block and not any_header:
        return  # an empty file
    if len(block) < BLOCK_BYTES and any_header:
        raise ShardDamageError(
            ShardFault.TRUNCATED, f"ends at byte {at + len(block)} without an end-of-archive mark"
        )
    what = "a broken header" if any_header else "no tar"
    raise ShardDamageError(ShardFault.UNREADABLE, f"{what} at byte {at}: {block[:24]!r}")


def _check_tail(tape: Tape, at: int, block: bytes, notes: TarNotes, *, zeros: int) -> None:
    """Checks the bytes behind zeros that may be an end-of-archive mark."""
    start = at - zeros
    if len(block) == BLOCK_BYTES:
        if zeros == BLOCK_BYTES:
            raise ShardDamageError(
                ShardFault.UNREADABLE, f"a broken header at byte {start}: a block of zeros"
            )
        found = _next_header(tape, at, block)
        if found is not None:
            raise ShardDamageError(
                ShardFault.UNREADABLE,
                f"a zeroed region at byte {start}; the next header after it is at byte {found}",
            )
    if block.strip(b"\0") or zeros > _PADDING_BYTES:
        notes.add(Note.BYTES_AFTER_END, at)


def _next_header(tape: Tape, at: int, data: bytes) -> int | None:
    """The byte of the first header in whole blocks from byte `at` on, where `data` starts.

    None if there is none nearby.
    """
    end = at + _MAX_TAIL_BYTES
    while data and at < end:
        for offset in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES):
            block = data[offset : offset + BLOCK_BYTES]
            if block != ZERO_BLOCK and parse_header(block) is not None:
                return at + offset
        at += len(data)
        data = tape.read(_STEP_BYTES)
    return None
