"""Remarks of a listing: entries that it skipped, and shards that may be unintended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dfn_ray.pool.shard import Shard
from dfn_ray.uris import utf8_safe


class Remark(StrEnum):
    """A kind of remark; the value is its message after a number."""

    HIDDEN_FOLDER = (
        "hidden folders (names that begin with . or _) are not read; name one in pool.uri to read "
        "it"
    )
    RUN = (
        "folders contain a run (run.json) and are not read; name RUN/subset in pool.uri to read a "
        "subset"
    )
    OTHER_ENDING = (
        "files look like shards but are not read: their endings are none of .tar, .tar.gz, .tgz "
        "and .parquet"
    )
    HIDDEN_FILE = (
        "files are named like shards but hidden (names that begin with .), as unfinished copies "
        "are, and are not read"
    )
    SPECIAL_FILE = (
        "pipes, sockets, devices or kernel files are named like shards or images and are not read"
    )
    LOOP = "links point back to a folder above them and are not followed"
    DANGLING_LINK = (
        "links are dangling (their target does not exist, e.g. on a disk that is not mounted) and "
        "are not followed"
    )
    SAME_FILE = (
        "shards are read twice, because they are listed under two paths to the same file or folder"
    )
    ABSENT_FOLDER = (
        "folders that pool.uri names in braces do not exist; their shards count as missing_shard"
    )
    NOTHING_THERE = "folders that pool.uri names do not exist; none of their shards are counted"
    HIDDEN_CLASS = (
        "class folders have hidden names; they count as classes, as in torchvision's ImageFolder"
    )


@dataclass
class Remarks:
    """Counts by kind of remark, with the first of each kind as an example."""

    counts: dict[Remark, int] = field(default_factory=dict)
    examples: dict[Remark, str] = field(default_factory=dict)

    def add(self, remark: Remark, example: str) -> None:
        """Counts one more of a kind."""
        self.counts[remark] = self.counts.get(remark, 0) + 1
        self.examples.setdefault(remark, utf8_safe(example))

    def lines(self) -> list[str]:
        """One line for each kind that occurred."""
        return [
            f"pool: {self.counts[remark]:,} {remark.value}; the first is {self.examples[remark]}"
            for remark in Remark
            if remark in self.counts
        ]


@dataclass(frozen=True)
class Listing:
    """The shards of a pool, with remarks on how they were found."""

    shards: tuple[Shard, ...]
    remarks: Remarks


def listing_notes(*listings: Listing) -> list[str]:
    """The remarks of listings, one line for each kind."""
    return [line for listing in listings for line in listing.remarks.lines()]
