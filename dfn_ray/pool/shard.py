"""A shard, and the exception for damage to it."""

from __future__ import annotations

from dataclasses import dataclass

from dfn_ray.schema import ShardFault


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of image-text pairs, as listed. About 300 bytes: a run holds millions."""

    uri: str
    """URI of the file."""
    name: str
    """Path below the fixed prefix of the pattern that found it. Derived uids are computed from this
    name, so a pool keeps them when it moves to another bucket."""
    size_bytes: int
    """Size in the listing; 0 if the file is absent or the store reports no size."""
    fault: ShardFault | None = None
    """Set if the listing alone shows that the shard cannot be used."""
    location: str | None = None
    """Path to open if it is not `uri`: a path that is not UTF-8, which `uri` spells with
    escapes."""
    version: str | None = None
    """The store's version of the content (an ETag) in this listing; None if it has none. Valid
    within one attempt only."""

    @property
    def opened_at(self) -> str:
        """The URI to open."""
        return self.location or self.uri


class ShardDamageError(Exception):
    """A shard cannot be read any further.

    Never leaves `pool`: it becomes the fault of the last chunk.
    """

    def __init__(self, fault: ShardFault, detail: str, member: str | None = None) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.member = member
        """Name of the tar member that the damage truncates, if any."""
