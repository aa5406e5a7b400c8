"""Target: JSON members of tars. Captions, uids and metadata of valid ones match `json`."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from dfn_ray.config import Pool
from dfn_ray.schema import Reason
from dfn_ray.testing.sample_pools import TarBuilder
from dfn_ray.untrusted.json_text import MAX_DEPTH
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import mutate
from tests.fuzz.shards import Row, read_file

_CAPTION_KEYS = ("caption", "text")
_UID = re.compile("[0-9a-fA-F]{32}")
_DEEPEST_SURE = MAX_DEPTH
"""Nesting levels that are always accepted."""


def make(rng: Random) -> Case:
    """A sample with a JSON member between two samples without one."""
    raw = _document(rng)
    valid = rng.random() < 0.6
    note = "valid JSON"
    if not valid:
        damage = mutate(rng, raw)
        raw, note = damage.data, f"JSON, {damage.note}"
    own_caption = rng.choice((None, None, "in a member of its own", ""))
    pool = Pool(uri=("x",), caption=rng.choice(("text", "text", "lines", "list")))
    tar = TarBuilder().sample("0", image=b"0", caption="before")
    tar.sample("1", image=b"1", metadata=raw, caption=own_caption)
    data = tar.sample("2", image=b"2", caption="behind").getvalue()
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        readout = read_file(data, folder, "0.tar", pool, Random(seed))
        require(readout.last.fault is None, "JSON makes a bad shard", readout.last.detail)
        require(
            [row["key"] for row in readout.rows] == ["0", "1", "2"], "rows beside JSON are lost"
        )
        before, row, behind = readout.rows
        require(
            (before["text"], behind["text"])
            == ((["before"], ["behind"]) if pool.several_captions else ("before", "behind")),
            "neighbours of JSON differ",
        )
        _check(row, raw, own_caption, pool)
        return Counter([row["reason"] or "ok"])

    return Case(
        valid=valid, note=f"{note}, caption {own_caption!r}", files={"0.tar": data}, check=check
    )


def _document(rng: Random) -> bytes:
    """JSON as all kinds of writers write it, sometimes something else."""
    if rng.random() < 0.08:
        return rng.choice((
            b"", b"null", b"[1, 2]", b'"text"', b"3", b"{}", b"\xff\xfe{\0}\0", b"{} trailing",
            b'{"caption": "a",}', b"{'caption': 'a'}", b"[" * 100_000,
            b'{"a":' * 3000 + b"1" + b"}" * 3000, b'{"caption": ' + b"9" * 5000 + b"}",
            b'{"caption":"' + b"x" * 70_000 + b'"}', b'{"a":"' + b"x" * 2**20 + b'"}',
        ))  # fmt: skip
    pairs = [
        (rng.choice(_NAMES)(rng), _value(rng, rng.choice((0, 1, 3))))
        for _ in range(rng.randint(0, 6))
    ]
    for key in rng.sample(_CAPTION_KEYS, rng.randint(0, 2)):
        pairs.append((key, rng.choice(_CAPTIONS)(rng)))
    if rng.random() < 0.3:
        pairs.append(
            ("uid", rng.choice(("0123456789abcdef" * 2, "0123456789ABCDEF" * 2, "x", "", 7, None)))
        )
    rng.shuffle(pairs)
    if pairs and rng.random() < 0.15:
        pairs.append((pairs[0][0], _value(rng, 1)))  # a key that is there twice
    ascii_only = rng.random() < 0.5
    body = ",".join(
        f"{_dumped(key, ascii_only)}:{_dumped(value, ascii_only)}" for key, value in pairs
    )
    text = rng.choice(("{%s}", "{%s}", "\ufeff{%s}", "\n\t {%s} \r\n")) % body
    return text.encode("utf-8", "surrogatepass")


def _dumped(value: Any, ascii_only: bool) -> str:
    text = json.dumps(value, ensure_ascii=ascii_only)
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if not ascii_only
        else text
    )


def _value(rng: Random, depth: int) -> Any:
    if depth and rng.random() < 0.5:
        items = [_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
        return items if rng.random() < 0.5 else {rng.choice(_NAMES)(rng): item for item in items}
    return rng.choice((
        None, True, 0, -1, 2**53 + 1, 10**40, -(2**63), 0.1, 1e308, -0.0, 5e-324, math.nan,
        math.inf, -math.inf, "", odd_text.text(rng, 3), "\ud83d", "\udc00x", "\0",
        _nested(rng.choice((10, 150, 900))),
    ))  # fmt: skip


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


_NAMES = (
    odd_text.word,
    lambda rng: odd_text.text(rng, 2),
    lambda rng: rng.choice(
        ("", "width", "original_width", "sha256", "\ud800", "\0", "a.b", "status", "key")
    ),
)
_CAPTIONS = (
    lambda rng: odd_text.text(rng, 4) + "a",
    lambda rng: odd_text.text(rng, 4) + "a",
    lambda rng: [odd_text.word(rng), odd_text.word(rng) + "\n" + odd_text.word(rng)],
    lambda rng: rng.choice((None, "", " ", 7, {}, [], [None], [1], "half \ud83d")),
)


def _check(row: Row, raw: bytes, own_caption: str | None, pool: Pool) -> None:
    """Checks that the row has the values that `json` finds, or a matching reason."""
    value = _parsed(raw)
    if not isinstance(value, dict):
        require(
            row["reason"] == Reason.BROKEN_JSON, "what is no JSON object is no broken_json", row
        )
        return
    if row["reason"] == Reason.BROKEN_JSON:
        require(_depth(raw) > _DEEPEST_SURE or len(raw) > 2**20, "whole JSON is called broken", row)
        return
    require(row["metadata"] is not None, "metadata is lost", row)
    require(json.loads(row["metadata"]) == _finite(value), "metadata has other values", row)
    uid = value.get("uid")
    if isinstance(uid, str) and _UID.fullmatch(uid):
        require(row["uid"] == uid.lower(), "its own uid is not taken", row)
    elif uid is not None:
        require(row["reason"] == Reason.BAD_UID, "a bad uid has another reason", row)
        return
    if pool.several_captions:
        return  # several.py
    captions = [own_caption] if own_caption else [value.get(key) for key in _CAPTION_KEYS]
    caption = next((text for text in captions if text is not None), None)
    if not isinstance(caption, str) or not caption.strip():
        return  # another key may serve, or the row has a reason: the shard's own checks
    if not _sayable(caption):
        require(row["reason"] == Reason.CAPTION_NOT_UTF8, "half a surrogate pair is a caption", row)
    elif len(caption.encode()) > pool.max_caption_bytes:
        require(row["reason"] == Reason.CAPTION_TOO_LONG, "a caption that is too long", row)
    elif any(character.isalnum() for character in caption):
        require(
            row["text"] == caption.removeprefix("\ufeff"), "a caption is not found", row, caption
        )


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _finite(value: Any) -> Any:
    """A parsed value with null for each number that JSON does not have.

    Without recursion in Python, which is limited.
    """
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _sayable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(raw: bytes) -> int:
    """Nesting levels of the text, including values that a repeated key overwrites."""
    text = raw.decode("utf-8-sig")
    value = json.loads(text, object_pairs_hook=lambda pairs: [item for _, item in pairs])
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [item for items in level if isinstance(items, list) for item in items]
    return deepest


TARGET = Target("sidecar", 2, make)
