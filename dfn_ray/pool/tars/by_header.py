"""Samples of a tar from the headers of their members, before any of their bytes are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfn_ray.config import Pool
from dfn_ray.pool.members import CaptionMembers, MemberRole, Role, member_role
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars.tar import Member
from dfn_ray.schema import Reason


@dataclass(slots=True)
class LocatedSample:
    """A sample with the positions of its members."""

    draft: Draft
    held_bytes: int
    """Bytes that it adds to a chunk: the size of its image, read or not, and its other parts as
    held."""
    bytes: int = 0
    parts: list[tuple[int, int | None, Role, int]] = field(default_factory=list)
    """Per part: the position of its bytes, their number, its role, and the number of a caption. A
    number of None marks a sparse file, whose map would take much memory, by the position of its
    header."""

    def add(self, part: MemberRole, member: Member, pool: Pool) -> None:
        """Adds a member by its header."""
        self.bytes += member.end - member.at
        needed = add_part(self.draft, part, member, pool)
        if needed or part.role is Role.IMAGE:
            self.held_bytes += member.size_bytes
        if needed:
            is_plain = member.extents is None
            start, size = (member.start, member.size_bytes) if is_plain else (member.at, None)
            self.parts.append((start, size, part.role, part.number))


def add_part(draft: Draft, part: MemberRole, member: Member, pool: Pool) -> bool:
    """Adds a member to its sample by its header; returns True if its bytes are needed."""
    if part.unsafe:
        draft.fault = Reason.UNSAFE_NAME
    elif member.broken and draft.fault is None:
        draft.fault = Reason.LINKED_MEMBER if member.is_link else Reason.BROKEN_MEMBER
    return draft.register(part.role, member.size_bytes, pool, part.number) and not member.broken


def mark_truncated(
    drafts: dict[str, Draft],
    latest: Draft | None,
    damage: ShardDamageError,
    captions: CaptionMembers,
) -> None:
    """Marks the samples that damage truncates: the one whose member it hits, and the last one."""
    part = member_role(damage.member, captions) if damage.member is not None else None
    victim = drafts.get(part.key) if part is not None else None
    if victim is not None and victim.fault is None:
        victim.fault = Reason.TRUNCATED_SHARD
    if latest is not None:
        latest.cut = True
