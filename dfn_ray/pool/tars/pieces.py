"""The members of a tar that are parts of samples, in order, with a bounded look-ahead.

A dotted image (`000.seg.png`) is an extra of another sample if it has neither caption nor metadata
of its own and a sample with a shorter name (`000`) has an image. Both are searched for nearby, so
that memory is bounded: in the chunk under construction, and among the members that follow without a
gap and share the name up to its first dot, at most `_MAX_AHEAD` of them and `chunk_bytes`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from dfn_ray.config import Pool
from dfn_ray.pool.members import CaptionMembers, MemberRole, Role, member_role, root_of
from dfn_ray.pool.samples import MAX_METADATA_BYTES
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar import Member, walk
from dfn_ray.pool.tars.tar_end import TarNotes

_MAX_AHEAD = 32
"""Parts of one sample; datasets with masks, depths and crops beside each image have up to a
dozen."""
_LOOSE_BYTES = 4 * 2**20  # thousands of captions that await their image; older ones are extras


@dataclass(slots=True)
class Piece:
    """A member as part of a sample; its bytes can be read until the next piece is requested."""

    part: MemberRole
    member: Member
    data: bytes | None = None
    """Its bytes, if they had to be read before looking ahead."""

    def read(self, tape: Tape) -> bytes:
        """Its bytes. The caller has checked its size."""
        if self.data is None:
            tape.jump(self.member.start)
            return self.member.read(tape)
        return self.data

    def hold(self, tape: Tape) -> None:
        """Reads its bytes for later."""
        self.data = self.read(tape)

    def forget_extents(self) -> None:
        """Releases the map of a sparse file, which can take more memory than its bytes."""
        if self.member.extents is not None:
            self.member = self.member._replace(extents=None)


class Pieces:
    """Iterates over the pieces from the tape's position on. Raises ShardDamageError like `walk`."""

    def __init__(self, tape: Tape, pool: Pool, notes: TarNotes | None = None) -> None:
        self._tape = tape
        self._walk = walk(tape, notes)
        self._captions = CaptionMembers.of(pool)
        self._limits = {
            Role.IMAGE: pool.max_image_bytes,
            Role.CAPTION: pool.max_caption_bytes,
            Role.METADATA: MAX_METADATA_BYTES,
        }
        self._most_bytes = pool.chunk_bytes
        self._ahead: deque[Piece] = deque()
        self._newest: Piece | None = None
        """The piece at whose bytes the tape is positioned."""
        self._damage: ShardDamageError | None = None

    def __iter__(self) -> Iterator[Piece]:
        while True:
            if self._ahead:
                yield self._ahead.popleft()
            elif self._damage is not None:
                raise self._damage
            else:
                piece = self._next()
                if piece is None:
                    return
                yield piece

    def following(self, piece: Piece, *, keep: bool) -> Iterator[MemberRole]:
        """The parts after `piece`, the latest one yielded, that share its name up to the first dot.

        Limited to the look-ahead. `keep` holds the bytes of skipped pieces, so that no store is
        read backward.
        """
        root = root_of(piece.part.key)
        size = piece.member.size_bytes
        for index in range(_MAX_AHEAD):
            if index == len(self._ahead) and not self._read_ahead(keep or not self._tape.can_jump):
                return
            part = self._ahead[index].part
            if root_of(part.key) != root:
                return
            yield part
            size += self._ahead[index].member.size_bytes
            if size > self._most_bytes:
                return

    def _read_ahead(self, keep: bool) -> bool:
        """Appends the next piece to the look-ahead; returns False if there is none."""
        if self._damage is not None:
            return False
        if self._newest is not None and (keep or self._newest.member.extents is not None):
            if self._may_be_needed(self._newest):
                self._newest.hold(self._tape)
            self._newest.forget_extents()
        try:
            piece = self._next()
        except ShardDamageError as damage:
            self._damage = damage
            return False
        if piece is not None:
            self._ahead.append(piece)
        return piece is not None

    def _next(self) -> Piece | None:
        self._newest = None
        for member in self._walk:
            part = member_role(member.name, self._captions)
            if part is not None:
                self._newest = Piece(part, member)
                return self._newest
        return None

    def _may_be_needed(self, piece: Piece) -> bool:
        """True if a sample may need the bytes of a piece."""
        limit = self._limits.get(piece.part.role, -1)
        return piece.member.size_bytes <= limit and not piece.member.broken


class Loose:
    """Captions and metadata that belong to a sample only if an image of it appears."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, list[Piece]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def keep(self, piece: Piece) -> None:
        """Holds a piece whose bytes have been read; drops the oldest ones if there are too many."""
        self._waiting.setdefault(piece.part.key, []).append(piece)
        self._bytes += _held(piece)
        while self._bytes > _LOOSE_BYTES:
            self.pop(next(iter(self._waiting)))

    def pop(self, key: str) -> list[Piece]:
        """The pieces that wait for the sample `key`, if any."""
        pieces = self._waiting.pop(key, [])
        self._bytes -= sum(map(_held, pieces))
        return pieces


def _held(piece: Piece) -> int:
    return (
        len(piece.data or b"") + 2 * len(piece.member.name) + 512
    )  # bytes of the tuples and slots
