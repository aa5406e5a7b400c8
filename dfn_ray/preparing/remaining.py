"""The works that remain of a list while their chunks arrive."""

from __future__ import annotations

from dataclasses import replace

from dfn_ray.on_ray.work import Work
from dfn_ray.schema import Chunk

DEATHS = 2
"""Processes that may die at the same chunk before the rest of its shard is left alone."""


def remaining_works(works: list[Work], chunk: Chunk, *, is_unread: bool) -> list[Work]:
    """The works that are left after this chunk, or after a shard that could not be read."""
    while works[0].shard.uri != chunk.shard:
        works = works[1:]
    head = works[0]
    is_all = head.first_rows is not None and chunk.first_row + chunk.rows >= head.first_rows
    if is_unread or chunk.last or is_all:
        return works[1:]
    return [replace(head, skip=head.skip | {chunk.first_row}), *works[1:]]


def place_of(work: Work) -> str:
    """The next chunk of the work, for messages."""
    return f"{work.shard.uri}, after {len(work.skip)} chunks"
