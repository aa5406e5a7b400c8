"""What a listing has to say beside its shards: what it left out, and what may not be meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dfn_ray.pool.shard import Shard
from dfn_ray.uris import utf8_safe


class Remark(StrEnum):
    """A kind of thing that a listing met, as the message about it has it after a number."""

    HIDDEN_FOLDER = (
        "hidden folders (. or _ begins their names) are not read; name one in pool.uri to read it"
    )
    RUN = "folders hold a run (run.json) and are not read; name RUN/subset in pool.uri to read a subset"
    OTHER_ENDING = "files look like shards but are not read: their endings are none of .tar, .tar.gz, .tgz and .parquet"
    HIDDEN_FILE = "files have the names of shards but are hidden (. begins their names), as unfinished copies are, and are not read"
    SPECIAL_FILE = "pipes, sockets or devices, or files of the kernel, have the names of shards or images and are not read"
    LOOP = "links lead back to a folder above them and are not followed"
    DANGLING_LINK = "links lead to nothing, as to a disk that is not mounted, and are not followed"
    SAME_FILE = "shards are read once more, by another path to the same file or folder"
    ABSENT_FOLDER = (
        "folders that pool.uri names in braces are absent; their shards count as missing_shard"
    )
    NOTHING_THERE = "folders that pool.uri names are absent, and no shards of theirs are counted"
    HIDDEN_CLASS = (
        "class folders have hidden names; they count as classes, as in torchvision's ImageFolder"
    )


@dataclass
class Remarks:
    """Counts of what a listing met, with the first of each kind as an example."""

    counts: dict[Remark, int] = field(default_factory=dict)
    examples: dict[Remark, str] = field(default_factory=dict)

    def add(self, remark: Remark, example: str) -> None:
        """Count one more of a kind."""
        self.counts[remark] = self.counts.get(remark, 0) + 1
        self.examples.setdefault(remark, utf8_safe(example))

    def lines(self) -> list[str]:
        """A line for each kind that was met."""
        return [
            f"pool: {self.counts[remark]:,} {remark.value}; the first is {self.examples[remark]}"
            for remark in Remark
            if remark in self.counts
        ]


@dataclass(frozen=True)
class Listing:
    """The shards of a pool, and what is to be said about how they were found."""

    shards: tuple[Shard, ...]
    remarks: Remarks


def listing_notes(*listings: Listing) -> list[str]:
    """What listings left out or met that may not be meant, a line for each kind."""
    return [line for listing in listings for line in listing.remarks.lines()]
