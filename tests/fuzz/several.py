"""Target: several captions per sample, in every form. Valid shards yield all visible captions."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.schema import Reason
from dfn_ray.testing.sample_pools import TarBuilder
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import mutate
from tests.fuzz.shards import read_file

Item = str | bytes | None
"""A caption, bytes that are not UTF-8, or nothing."""
Items = list[Item]
_BLANK = ("", " ", "\t \u3000", None)


def make(rng: Random) -> Case:
    """A shard whose samples have several captions, damaged or not."""
    form = rng.choice(tuple(_FORMS))
    caption, is_bytes, write = _FORMS[form]
    samples = [
        _items(rng, plain=caption == "lines", is_bytes=is_bytes) for _ in range(rng.randint(1, 6))
    ]
    data = write(rng, samples)
    name = "0.parquet" if data.startswith(b"PAR1") else "0.tar"
    valid = rng.random() < 0.6
    note = f"{form}, {len(samples)} samples"
    if not valid:
        damage = mutate(rng, data)
        data, note = damage.data, f"{note}, {damage.note}"
    pool = Pool(uri=("x",), caption=caption, chunk_rows=rng.choice((1, 2, 256)))
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        readout = read_file(data, folder, name, pool, Random(seed))
        if valid:
            require(readout.last.fault is None, "a shard of several captions is bad", readout.last)
            require(len(readout.rows) == len(samples), "samples are lost, or made up")
            for row, items in zip(readout.rows, samples, strict=True):
                text, reason = _expected(items, pool)
                require(
                    row["reason"] == reason,
                    "several captions have another reason",
                    row["reason"],
                    reason,
                    items,
                )
                require(row["text"] == text, "several captions are others", row["text"], text)
        return readout.outcomes

    return Case(valid=valid, note=note, files={name: data}, check=check)


def _items(rng: Random, *, plain: bool, is_bytes: bool) -> Items:
    """Captions that are clearly visible, or empty; `plain` ones have a single line."""
    pick = rng.random()
    if pick < 0.04:
        return ["x"] * rng.choice((256, 257, 1000))
    if pick < 0.08:
        return ["x" * 1000] * rng.choice((60, 66))
    items: Items = []
    for _ in range(rng.choice((0, 1, 2, 5, 5, 12))):
        text = (
            odd_text.word(rng) if plain else odd_text.text(rng, rng.randint(1, 6)).replace("\0", "")
        )
        items.append(rng.choice(_BLANK) if rng.random() < 0.2 else f"a{text}")
    if is_bytes and items and rng.random() < 0.1:
        items[-1] = b"caf\xe9"
    return items


def _expected(items: Items, pool: Pool) -> tuple[list[str] | None, Reason | None]:
    told = [item for item in items if item and (isinstance(item, bytes) or item.strip(" \t\u3000"))]
    if (
        sum(len(item if isinstance(item, bytes) else item.encode()) for item in told)
        > pool.max_caption_bytes
    ):
        return None, Reason.CAPTION_TOO_LONG
    if any(isinstance(item, bytes) for item in told):
        return None, Reason.CAPTION_NOT_UTF8
    if not told:
        return None, Reason.EMPTY_CAPTION
    if len(told) > 256:
        return None, Reason.TOO_MANY_CAPTIONS
    return [item for item in told if isinstance(item, str)], None


def _octets(item: Item) -> bytes:
    return item if isinstance(item, bytes) else (item or "").encode()


def _lines(rng: Random, items: Items) -> bytes:
    return rng.choice((b"\n", b"\r\n", b"\n\n", b"\n \t\n")).join(map(_octets, items))


def _tar(
    members: Callable[[Random, Items], list[tuple[str, bytes]]],
) -> Callable[[Random, list[Items]], bytes]:
    """A writer of tars whose samples have these members beside their image."""

    def write(rng: Random, samples: list[Items]) -> bytes:
        tar = TarBuilder()
        for number, items in enumerate(samples):
            files = [(f"{number:03d}.jpg", b"image")]
            files += [(f"{number:03d}.{name}", data) for name, data in members(rng, items)]
            if rng.random() < 0.3:
                rng.shuffle(files)
            for name, data in files:
                tar.member(name, data)
        return tar.getvalue()

    return write


def _numbered(rng: Random, items: Items) -> list[tuple[str, bytes]]:
    first, width = rng.choice((0, 1, 7)), rng.choice((1, 3))
    files = [(f"{number:0{width}d}.txt", _octets(item)) for number, item in enumerate(items, first)]
    return files or [("txt", b"")]


def _column(
    values: Callable[[Items], Any], kinds: tuple[pa.DataType, ...]
) -> Callable[[Random, list[Items]], bytes]:
    """A writer of Parquet files with one column of captions."""

    def write(rng: Random, samples: list[Items]) -> bytes:
        name = rng.choice(("text", "caption", "txt"))
        return _parquet(
            rng, samples, {name: pa.array(list(map(values, samples)), rng.choice(kinds))}
        )

    return write


def _columns(rng: Random, samples: list[Items]) -> bytes:
    most = max(1, *map(len, samples))
    columns = {
        f"caption_{n}": pa.array(
            [_octets(items[n]) if n < len(items) else None for items in samples], pa.binary()
        )
        for n in range(most)
    }
    # A sample of no captions at all is `missing_caption`; an empty one says nothing either.
    columns["caption_9999"] = pa.array([b""] * len(samples), pa.binary())
    return _parquet(rng, samples, dict(rng.sample(list(columns.items()), len(columns))))


def _parquet(rng: Random, samples: list[Items], columns: dict[str, pa.Array]) -> bytes:
    file = io.BytesIO()
    table = pa.table({"image": [b"image"] * len(samples), **columns})
    pq.write_table(
        table, file, row_group_size=rng.choice((1, 3, 100)), use_dictionary=rng.random() < 0.5
    )
    return file.getvalue()


_LISTS = tuple(
    around(kind)
    for around in (pa.list_, pa.large_list)
    for kind in (pa.binary(), pa.large_binary())
)
_FORMS: dict[str, tuple[Literal["lines", "list"], bool, Callable[[Random, list[Items]], bytes]]] = {
    "lines of a member": ("lines", True, _tar(lambda rng, items: [("txt", _lines(rng, items))])),
    "an array in a member": (
        "list",
        False,
        _tar(lambda _, items: [("txt", json.dumps(items).encode())]),
    ),
    "an array in JSON": (
        "list",
        False,
        _tar(
            lambda rng, items: [
                (
                    "json",
                    json.dumps(
                        {rng.choice(("caption", "text", "captions", "texts")): items}
                    ).encode(),
                )
            ]
        ),
    ),
    "numbered members": ("list", True, _tar(_numbered)),
    "lines of a column": (
        "lines",
        True,
        _column(lambda items: b"\n".join(map(_octets, items)), (pa.binary(), pa.large_binary())),
    ),
    "lists of a column, lines": (
        "lines",
        True,
        _column(lambda items: [i and _octets(i) for i in items], _LISTS),
    ),
    "lists of a column": (
        "list",
        True,
        _column(lambda items: [i and _octets(i) for i in items], _LISTS),
    ),
    "numbered columns": ("list", True, _columns),
}
TARGET = Target("several", 2, make)
