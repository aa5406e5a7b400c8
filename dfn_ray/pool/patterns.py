"""Braces in URIs: `{00000..00099}` counts, `{a,b}` lists, both nest."""

from __future__ import annotations

import re
from itertools import product

from dfn_ray.errors import InputError

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_EXPANSIONS = 20_000_000  # far above any pool; a typing error should not fill the memory


def expand_braces(pattern: str) -> list[str]:
    """The URIs that `pattern` stands for, in its order; a pattern without braces stands for itself.

    `{08..11}` gives 08, 09, 10, 11: numbers are as wide as the first one is when it begins with 0.
    Braces with neither a comma nor a range stay as they are.
    """
    if pattern.count("{") != pattern.count("}"):
        raise InputError(f"pool.uri: braces do not match in {pattern}")
    return _expand(pattern)


def fixed_prefix(pattern: str) -> str:
    """The folder part of `pattern` before anything in it varies, without a slash at the end."""
    varies = re.search(r"[*?\[{]", pattern)
    return pattern[: varies.start() if varies else len(pattern)].rpartition("/")[0]


def has_wildcard(uri: str) -> bool:
    """True if `uri` is a glob."""
    return any(character in uri for character in "*?[")


def _expand(pattern: str) -> list[str]:
    start = pattern.find("{")
    if start < 0:
        return [pattern]
    end = _closing(pattern, start)
    heads = [pattern[:start]]
    bodies = _alternatives(pattern[start + 1 : end])
    tails = _expand(pattern[end + 1 :])
    if len(bodies) * len(tails) > _MAX_EXPANSIONS:
        raise InputError(f"pool.uri: {pattern} stands for more than {_MAX_EXPANSIONS:,} shards")
    return ["".join(parts) for parts in product(heads, bodies, tails)]


def _closing(pattern: str, start: int) -> int:
    """Index of the brace that closes the one at `start`."""
    depth = 0
    for index in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[index], 0)
        if depth == 0:
            return index
    raise InputError(f"pool.uri: braces do not match in {pattern}")


def _alternatives(body: str) -> list[str]:
    """What the inside of one pair of braces stands for."""
    if match := _RANGE.fullmatch(body):
        first, last = match.groups()
        if int(last) - int(first) >= _MAX_EXPANSIONS:
            raise InputError(
                f"pool.uri: {{{body}}} stands for more than {_MAX_EXPANSIONS:,} shards"
            )
        if int(last) < int(first):
            raise InputError(f"pool.uri: {{{body}}} counts down; write the smaller number first")
        width = len(first) if first.startswith("0") else 0
        return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
    items, depth, begin = [], 0, 0
    for index, character in enumerate(body):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            items.append(body[begin:index])
            begin = index + 1
    if not items:
        return [f"{{{body}}}"]
    return [text for item in (*items, body[begin:]) for text in _expand(item)]
