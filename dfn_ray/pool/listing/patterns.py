"""Patterns in URIs: braces (`{00000..00099}` counts, `{a,b}` lists, both nest) and globs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from fnmatch import translate
from itertools import accumulate, product
from math import prod

from dfn_ray.errors import InputError, shortened

_NUMBERS = re.compile(r"(-?[0-9]+)\.\.(-?[0-9]+)(?:\.\.(-?[0-9]+))?")
_MAX_DIGITS = 18  # fits 64 bits; int rejects more than 4,300
_MAX_DEPTH = 20  # braces in braces; real patterns have two or three
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d+))?")
_MAX_EXPANSIONS = 20_000_000  # far above any pool; a typo must not fill memory
_WILDCARDS = "*?["

ESCAPING = (
    "A path that exists as written is used as it is; otherwise *, ?, [ and { form a pattern. "
    "To match one of them literally, put it in brackets: [*] [?] [[]"
)
"""For messages: the spelling of a file whose name looks like a pattern."""


def expand_braces(pattern: str) -> list[str]:
    """The URIs that `pattern` expands to, in order; a pattern without braces expands to itself.

    As in bash: `{08..11}` becomes 08, 09, 10, 11, and `{8..011}` 008 to 011: if either end begins
    with 0, numbers are as wide as the wider end. `{0..6..2}` counts by 2, `{3..1}` down, `{a..c}`
    through letters. Braces with neither a comma nor a range are kept as they are.
    """
    if pattern.count("{") != pattern.count("}"):
        raise _unmatched(pattern)
    if _depth(pattern) > _MAX_DEPTH:
        raise InputError(
            f"pool.uri: braces in {shortened(pattern)} are nested more than {_MAX_DEPTH} deep; use "
            "fewer levels"
        )
    return _expand(pattern)


def split_fixed(pattern: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """The leading folders of a pattern that are literal, and the rest.

    The rest is "" if the whole pattern is literal. A name with `*?[{` counts as literal if `exists`
    returns True for the path up to it.
    """
    path = without_query(pattern)
    names = path.split("/")
    for index, name in enumerate(names):
        if is_pattern(name) and not exists("/".join(names[: index + 1])):
            return "/".join(names[:index]), "/".join(names[index:]) + pattern[len(path) :]
    return pattern, ""


def without_query(uri: str) -> str:
    """A URI without its query string, which `?` begins over HTTP; elsewhere it is a wildcard."""
    return uri.partition("?")[0] if uri.startswith(("http://", "https://")) else uri


def is_pattern(pattern: str) -> bool:
    """True if `pattern` contains braces or a glob."""
    return "{" in pattern or has_wildcard(pattern)


def has_wildcard(pattern: str) -> bool:
    """True if `pattern` is a glob."""
    return any(character in pattern for character in _WILDCARDS)


def is_hidden(name: str) -> bool:
    """True for names of files that are not data, by the convention of Hive, Spark and Arrow."""
    return name.startswith((".", "_"))


State = frozenset[int]
"""State of a walk along a glob: the numbers of its names that the path so far may have matched."""


class Glob:
    """A glob for paths below a folder, matched name by name.

    So a walk enters no folder where nothing can match. `*`, `?` and `[...]` match within a name,
    `**` any number of folders, at the end any file below them. A hidden folder is matched only by a
    name that begins like it, with `.` or `_`; so is a file that begins with `.`.
    """

    def __init__(self, pattern: str) -> None:
        self._names = pattern.split("/")
        if any("**" in name and name != "**" for name in self._names):
            raise InputError(
                "pool.uri: ** matches any number of folders and must be alone between slashes, "
                f"got {pattern}"
            )
        self._regexes = [_matcher(name) for name in self._names]
        self._last = len(self._names) - 1
        self.start: State = self._with_empty({0})
        self.depth = None if "**" in self._names else len(self._names)
        """Number of names in a path that matches; None for any number."""

    def advance(self, state: State, name: str, *, hidden: bool = False) -> State:
        """The state below a folder; empty if nothing below it can match.

        `hidden` treats hidden folders like others.
        """
        passed = is_hidden(name) and not hidden
        reached: set[int] = set()
        for index in state:
            pattern = self._names[index]
            if pattern == "**":
                reached.update(() if passed else (index,))
            elif (
                index < self._last
                and self._regexes[index](name)
                and not (passed and pattern[0] in _WILDCARDS)
            ):
                reached.add(index + 1)
        return self._with_empty(reached)

    def matches_file(self, state: State, name: str, *, hidden: bool = False) -> bool:
        """True if a file in a folder matches. `hidden` treats hidden files like others."""
        if self._last not in state:
            return False
        pattern = self._names[self._last]
        if name.startswith(".") and pattern[0] in _WILDCARDS and not hidden:
            return False
        return pattern == "**" or bool(self._regexes[self._last](name))

    def literal(self, state: State) -> State:
        """The part of a state that continues with a folder which the glob names in full."""
        return frozenset(
            index for index in state if index < self._last and not has_wildcard(self._names[index])
        )

    def matches(self, path: str) -> bool:
        """True if a file at a path below the folder matches."""
        *folders, name = path.split("/")
        state = self.start
        for folder in folders:
            state = self.advance(state, folder)
        return self.matches_file(state, name)

    def _with_empty(self, state: set[int]) -> State:
        """The state with the successors of each `**` that matches no folder at all."""
        for index in range(min(state, default=self._last), self._last):
            if index in state and self._names[index] == "**":
                state.add(index + 1)
        return frozenset(state)


def _matcher(name: str) -> Callable[[str], re.Match[str] | None]:
    """A function that matches a name against a glob without slashes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about nested sets, which do not occur here
            return re.compile(translate(name)).match
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"pool.uri: invalid glob: {shortened(name)}: {type(error).__name__}. {ESCAPING}"
        ) from None


def _depth(pattern: str) -> int:
    """The largest number of braces that are open at a time."""
    return max(accumulate({"{": 1, "}": -1}.get(character, 0) for character in pattern), default=0)


def _expand(pattern: str) -> list[str]:
    parts: list[Sequence[str]] = []
    at = 0
    while (start := pattern.find("{", at)) >= 0:
        end = _closing(pattern, start)
        parts += [[pattern[at:start]], _alternatives(pattern[start + 1 : end])]
        at = end + 1
    parts.append([pattern[at:]])
    if prod(map(len, parts)) > _MAX_EXPANSIONS:
        raise _too_many(pattern)
    return ["".join(chosen) for chosen in product(*parts)]


def _closing(pattern: str, start: int) -> int:
    """Index of the brace that closes the one at `start`."""
    depth = 0
    for index in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[index], 0)
        if depth == 0:
            return index
    raise _unmatched(pattern)


def _alternatives(body: str) -> list[str]:
    """The expansions of the inside of one pair of braces."""
    if re.search(rf"[0-9]{{{_MAX_DIGITS + 1}}}", body) and ".." in body:
        raise InputError(
            f"pool.uri: {shortened(f'{{{body}}}')} contains a number of more than {_MAX_DIGITS} "
            "digits"
        )
    if match := _NUMBERS.fullmatch(body):
        first, last, step = match.groups()
        padded = any(re.match(r"-?0\d", end) for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        return [str(number).zfill(width) for number in _range(body, int(first), int(last), step)]
    if match := _LETTERS.fullmatch(body):
        first, last, step = match.groups()
        return [chr(number) for number in _range(body, ord(first), ord(last), step)]
    items, depth, begin = [], 0, 0
    for index, character in enumerate(body):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            items.append(body[begin:index])
            begin = index + 1
    if not items:
        return [f"{{{item}}}" for item in _expand(body)]
    return [text for item in (*items, body[begin:]) for text in _expand(item)]


def _range(body: str, first: int, last: int, step: str | None) -> range:
    """The numbers of a range, up or down, both ends included.

    A step of 0 counts as 1, and its sign is ignored.
    """
    by = abs(int(step or 1)) or 1
    if abs(last - first) // by >= _MAX_EXPANSIONS:
        raise _too_many(f"{{{body}}}")
    return range(first, last + 1, by) if first <= last else range(first, last - 1, -by)


def _unmatched(pattern: str) -> InputError:
    return InputError(f"pool.uri: unbalanced braces in {shortened(pattern, 1000)}. {ESCAPING}")


def _too_many(pattern: str) -> InputError:
    return InputError(
        f"pool.uri: {shortened(pattern, 1000)} expands to more than {_MAX_EXPANSIONS:,} shards"
    )
