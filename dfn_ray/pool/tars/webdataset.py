"""Samples of a tar: members grouped by key into chunks.

Members of a sample need not be adjacent as long as they meet in the chunk under construction. If
they do not (all images first, then all captions), the rest of the shard is indexed by its headers
and read by position. A compressed shard cannot be: there, samples whose members do not meet fail
with `non_contiguous_key`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dfn_ray.config import Pool
from dfn_ray.pool.chunking import OpenChunk, RowSelection, held_bytes
from dfn_ray.pool.members import CaptionMembers, MemberRole, Role, member_role, shorter_keys
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.by_header import LocatedSample, add_part, mark_truncated
from dfn_ray.pool.tars.closed_keys import ClosedKeys
from dfn_ray.pool.tars.pieces import Loose, Piece, Pieces
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar import Member, walk
from dfn_ray.pool.tars.tar_end import TarNotes
from dfn_ray.schema import Reason


def tar_chunks(
    tape: Tape, pool: Pool, selection: RowSelection, *, first_row: int = 0, at: int = 0
) -> Iterator[OpenChunk]:
    """The chunks of a tar, in order; the last one carries the fault of the shard, if it has one.

    Walks from byte `at` on, where the chunk begins whose first sample is `first_row`.

    Holds one chunk and digests of the names before it (bounded by `ClosedKeys`). A shard that must
    be indexed, which a compressed one never is, also holds a few hundred bytes for each of its
    samples.
    """
    return _Reader(tape, pool, selection).chunks(first_row, at)


@dataclass(slots=True)
class _Open:
    """The chunk under construction."""

    chunk: OpenChunk
    at: int
    """Tape position of its first member."""
    stored_at: int
    """The same in the store; approximate if the tar is compressed."""
    drafts: dict[str, Draft] = field(default_factory=dict)

    def add(self, draft: Draft) -> Draft:
        """Appends a sample."""
        self.chunk.add(draft)
        self.drafts[draft.key] = draft
        return draft

    def release(self) -> None:
        """Drops the samples: they will be read again."""
        self.chunk.drafts.clear()
        self.drafts.clear()


class _Reader:
    """Walks one tar and yields its chunks."""

    def __init__(self, tape: Tape, pool: Pool, selection: RowSelection) -> None:
        self._tape = tape
        self._pool = pool
        self._selection = selection
        self._captions = CaptionMembers.of(pool)
        self._closed = ClosedKeys(tape.size_bytes)
        self._loose = Loose()
        self._notes = TarNotes()

    def chunks(self, first_row: int, at: int) -> Iterator[OpenChunk]:
        """Yields chunks in the order of the members."""
        tape, pool = self._tape, self._pool
        tape.jump(at)
        opened = _Open(self._new_chunk(first_row, at), at=at, stored_at=tape.stored_at(at))
        latest: Draft | None = None
        pieces = Pieces(tape, pool, self._notes)
        try:
            for piece in pieces:
                part = piece.part
                draft = opened.drafts.get(part.key)
                if draft is None:
                    if part.key not in self._closed:
                        if part.loose:
                            self._loose.keep(self._held(piece))
                            continue
                        if part.dotted and self._is_extra(piece, pieces, opened):
                            continue
                    if opened.chunk.is_full(pool):
                        if tape.can_jump and not any(d.is_pair for d in opened.drafts.values()):
                            break
                        begin = piece.member.at
                        stored_at = tape.stored_at(begin)
                        opened.chunk.bytes_read = stored_at - opened.stored_at
                        self._closed.add(opened.drafts)
                        yield opened.chunk
                        first_row = opened.chunk.first_row + len(opened.drafts)
                        opened = _Open(
                            self._new_chunk(first_row, begin), at=begin, stored_at=stored_at
                        )
                    draft = opened.add(self._draft(part.key, opened.chunk.next_row))
                    if draft.fault or draft.caption_size is not None or draft.json_size is not None:
                        opened.chunk.at = None  # it depends on bytes before the chunk
                elif self._overflows(part, draft, opened.chunk):
                    if tape.can_jump:
                        break
                    self._add_unread(draft, piece)
                    latest = draft
                    continue
                latest = draft
                self._take(draft, piece, opened.chunk)
            else:
                opened.chunk.last = True
                yield self._last_chunk(opened.chunk)
                return
        except ShardDamageError as damage:
            mark_truncated(opened.drafts, latest, damage, self._captions)
            opened.chunk.end(damage)
            yield self._last_chunk(opened.chunk)
            return
        opened.release()
        yield from self._indexed_chunks(opened.chunk.first_row, opened.at)

    def _new_chunk(self, first_row: int, at: int) -> OpenChunk:
        return OpenChunk(first_row, at=at if self._tape.can_jump else None)

    def _last_chunk(self, chunk: OpenChunk) -> OpenChunk:
        """The last chunk, with the notes about the shard."""
        chunk.notes.update(self._notes.notes)
        return chunk

    def _overflows(self, part: MemberRole, draft: Draft, chunk: OpenChunk) -> bool:
        """True if a part belongs to an earlier sample of a chunk that already holds enough bytes.

        Captions and metadata may exceed the limit by a quarter: an image may have filled the chunk,
        and they are small.
        """
        share = self._pool.chunk_bytes
        is_held = part.role is not Role.UNSUPPORTED
        if chunk.held_bytes < share or draft is chunk.drafts[-1] or not is_held:
            return False
        if part.role is Role.IMAGE:
            return draft.images == 0
        size = draft.caption_size if part.role is Role.CAPTION else draft.json_size
        return size is None and chunk.held_bytes >= share + share // 4

    def _held(self, piece: Piece) -> Piece:
        """A loose piece with its bytes, unless they are too many to be used."""
        if add_part(Draft(0, ""), piece.part, piece.member, self._pool):
            piece.hold(self._tape)
        piece.forget_extents()
        return piece

    def _is_extra(self, piece: Piece, pieces: Pieces, opened: _Open) -> bool:
        """True if a dotted image belongs to a sample with a shorter name; see `pieces`."""
        key = piece.part.key
        if key in self._loose:
            return False
        shorter = set(shorter_keys(key))
        is_extra = any(name in opened.drafts and opened.drafts[name].has_image for name in shorter)
        for part in pieces.following(
            piece, keep=self._selection.may_include(opened.chunk.first_row)
        ):
            if part.key == key and not part.is_image:
                return False
            is_extra = is_extra or (part.is_image and part.key in shorter)
        return is_extra

    def _draft(self, key: str, row: int) -> Draft:
        """A new sample, with the captions and metadata that have been waiting for it."""
        fault = Reason.NON_CONTIGUOUS if key in self._closed else None
        draft = Draft(row=row, key=key, fault=fault)
        for piece in self._loose.pop(key):
            if add_part(draft, piece.part, piece.member, self._pool) and piece.data is not None:
                draft.fill(piece.part.role, piece.data, piece.part.number)
        return draft

    def _take(self, draft: Draft, piece: Piece, chunk: OpenChunk) -> None:
        """Adds a member to its sample, and reads it if its bytes are needed."""
        part, member = piece.part, piece.member
        needed = add_part(draft, part, member, self._pool)
        if needed or part.role is Role.IMAGE:
            chunk.held_bytes += member.size_bytes
        if needed and self._selection.includes(chunk.first_row, draft.row):
            draft.fill(part.role, piece.read(self._tape), part.number)

    def _add_unread(self, draft: Draft, piece: Piece) -> None:
        """Adds a member by its header alone to a sample, which fails.

        Its members are too far apart to be held.
        """
        draft.fault = draft.fault or Reason.NON_CONTIGUOUS
        add_part(draft, piece.part, piece.member, self._pool)
        draft.image = None

    def _indexed_chunks(self, first_row: int, at: int) -> Iterator[OpenChunk]:
        """The chunks from `first_row` on, after indexing all members from position `at` on."""
        index, damage = self._index(first_row, at)
        chunk, placed = OpenChunk(first_row), list[LocatedSample]()
        for sample in index.values():
            if chunk.is_full(self._pool):
                self._read(chunk, placed)
                yield chunk
                chunk, placed = OpenChunk(chunk.first_row + len(placed)), []
            placed.append(sample)
            chunk.drafts.append(sample.draft)
            chunk.held_bytes += sample.held_bytes
            chunk.bytes_read += sample.bytes
        self._read(chunk, placed)
        chunk.last = True
        if damage is not None:
            chunk.end(damage)
        yield self._last_chunk(chunk)

    def _index(
        self, first_row: int, at: int
    ) -> tuple[dict[str, LocatedSample], ShardDamageError | None]:
        """Every sample from position `at` on with the positions of its members, from one walk."""
        index: dict[str, LocatedSample] = {}
        loose: list[tuple[MemberRole, Member]] = []
        latest: Draft | None = None
        damage = None
        self._tape.jump(at)
        try:
            for member in walk(self._tape, self._notes):
                part = member_role(member.name, self._captions)
                if part is None:
                    continue
                if part.loose and part.key not in index and part.key not in self._closed:
                    loose.append((part, member))
                    continue
                if part.key not in index:
                    draft = self._draft(part.key, first_row + len(index))
                    index[part.key] = LocatedSample(draft, held_bytes(draft))
                latest = index[part.key].draft
                index[part.key].add(part, member, self._pool)
        except ShardDamageError as error:
            damage = error
        for part, member in loose:
            if part.key in index:
                index[part.key].add(part, member, self._pool)
        for key, owner in self._extras(index).items():
            if latest is index.pop(key).draft:
                latest = index[owner].draft
        for row, sample in enumerate(index.values(), first_row):
            sample.draft.row = row
        if damage is not None:
            drafts = {key: sample.draft for key, sample in index.items()}
            mark_truncated(drafts, latest, damage, self._captions)
        return index, damage

    def _extras(self, index: dict[str, LocatedSample]) -> dict[str, str]:
        """The dotted images that belong to samples with shorter names, each with the shortest."""
        extras: dict[str, str] = {}
        for key, sample in index.items():
            draft = sample.draft
            if draft.caption_size is None and draft.json_size is None and key not in self._closed:
                owners = (name for name in shorter_keys(key) if name in index)
                if owner := next((name for name in owners if index[name].draft.has_image), None):
                    extras[key] = owner
        return extras

    def _read(self, chunk: OpenChunk, placed: list[LocatedSample]) -> None:
        """Fills the selected samples of a chunk in file order, so that a store is read forward."""
        parts = [
            (start, size, role, number, sample.draft)
            for sample in placed
            if self._selection.includes(chunk.first_row, sample.draft.row)
            for start, size, role, number in sample.parts
            if role is not Role.IMAGE or sample.draft.images == 1
        ]
        for start, size, role, number, draft in sorted(parts, key=lambda part: part[0]):
            self._tape.jump(start)
            data = (
                next(walk(self._tape)).read(self._tape) if size is None else self._tape.read(size)
            )
            draft.fill(role, data, number)
