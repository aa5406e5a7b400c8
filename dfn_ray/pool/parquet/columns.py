"""The roles of the columns of a Parquet file in a sample, by name and type."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.pool.captions import LABEL_KEYS
from dfn_ray.pool.parquet.arrow_types import (
    has_binary,
    is_binary,
    is_image_struct,
    is_list,
    is_string,
    plain_type,
)
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.schema import ShardFault
from dfn_ray.untrusted.json_text import MAX_DEPTH
from dfn_ray.untrusted.parquet_files import NO_KEYS

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "jpeg")
TEXT_COLUMNS = ("text", "caption", "txt")
LIST_COLUMNS = (*TEXT_COLUMNS, "captions", "texts")
"""The same for samples with several captions."""
KEY_COLUMN = "key"
UID_COLUMN = "uid"


class MetadataColumn(NamedTuple):
    """A column that becomes part of the metadata."""

    label: str
    """Its key in the metadata: its name, or `NAME#2` for the second column of one name."""
    name: str
    place: int
    """Ordinal among the columns of its name."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file by role."""

    image: str
    texts: tuple[str, ...]
    """One column of captions, or several with one caption each, in the order of their numbers."""
    key: str | None
    uid: str | None
    metadata: tuple[MetadataColumn, ...]
    """All other columns without binary values, including the one of the uid."""
    encrypted: frozenset[str] = frozenset()
    """Columns of metadata that are skipped because they cannot be read without a key."""

    @property
    def names(self) -> list[str]:
        """Names of all columns to read, each once."""
        names = (self.image, *self.texts, *((self.key,) if self.key else ()))
        names += tuple(column.name for column in self.metadata)
        return [name for name in dict.fromkeys(names) if name not in self.encrypted]

    def without(self, encrypted: frozenset[str]) -> Columns:
        """The columns if these are encrypted.

        Raises ShardDamageError if a sample needs one of them.
        """
        needed = {self.image, *self.texts, self.key, self.uid}
        if unreadable := sorted(encrypted & needed):
            raise ShardDamageError(
                ShardFault.UNREADABLE,
                f"column {unreadable[0]!r} is encrypted; {NO_KEYS}",
            )
        return replace(self, encrypted=encrypted)


def columns_of(schema: pa.Schema, pool: Pool) -> Columns:
    """The columns of a file by role.

    Raises ShardDamageError if image, caption or uid is unreadable.
    """
    _require_shallow(schema)
    image = _find_column(schema, "image", pool.image_column, IMAGE_COLUMNS, _holds_images)
    texts = _texts(schema, pool)
    uid = UID_COLUMN if UID_COLUMN in schema.names and pool.uid == "auto" else None
    if uid and not _holds_strings(_unique_column(schema, uid).type):
        raise ShardDamageError(
            ShardFault.MISTYPED_COLUMN,
            f"column 'uid' is {_unique_column(schema, uid).type}, not a string; set pool.uid = "
            '"derive" to ignore it',
        )
    key = KEY_COLUMN if KEY_COLUMN in schema.names else None
    if key:
        _unique_column(schema, key)
    return Columns(image, texts, key, uid, _metadata_columns(schema, {image, *texts, key}))


def _texts(schema: pa.Schema, pool: Pool) -> tuple[str, ...]:
    """The columns with captions. Raises ShardDamageError."""
    usual, named = TEXT_COLUMNS, pool.text_column
    if pool.caption == "label":
        usual = LABEL_KEYS
    elif pool.several_captions:
        usual = LIST_COLUMNS
        if named is None:  # a list before a column with one of its strings
            usual = sorted(usual, key=lambda name: not _has_list(schema, name))
    if pool.caption == "list" and not _has_list(schema, named or usual[0]):
        for pattern in [named] if named else [f"{name}_*" for name in TEXT_COLUMNS]:
            if texts := _numbered(schema, pattern):
                return texts
    return (_find_column(schema, "text", named, usual, _HOLDS[pool.caption]),)


def _has_list(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and is_list(plain_type(_unique_column(schema, name).type))


def _numbered(schema: pa.Schema, pattern: str) -> tuple[str, ...]:
    """The columns whose names have a number in place of the `*` of a pattern, sorted by it.

    Raises ShardDamageError.
    """
    before, star, behind = pattern.partition("*")
    named = re.compile(f"{re.escape(before)}([0-9]{{1,4}}){re.escape(behind)}")
    found = {
        name: int(match[1]) for name in schema.names if star and (match := named.fullmatch(name))
    }
    for name in found:
        if not _holds_text(_unique_column(schema, name).type):
            raise ShardDamageError(
                ShardFault.MISTYPED_COLUMN,
                f"column {name!r} is {schema.field(name).type} and cannot hold a caption",
            )
    return tuple(sorted(found, key=lambda name: (found[name], name)))


def _metadata_columns(schema: pa.Schema, taken: set[str | None]) -> tuple[MetadataColumn, ...]:
    seen: Counter[str] = Counter()
    columns = []
    for column, label in zip(schema, distinct_labels(schema.names), strict=True):
        place = seen[column.name]
        seen[column.name] += 1
        if column.name not in taken and not has_binary(column.type):
            columns.append(MetadataColumn(label, column.name, place))
    return tuple(columns)


def distinct_labels(names: Sequence[str]) -> list[str]:
    """The names, made distinct: the second of one name becomes `NAME#2`, and so on.

    With more `#` if that is a name too.
    """
    seen: Counter[str] = Counter()
    taken = set(names)
    labels = []
    for name in names:
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name}#{seen[name]}"
        while seen[name] > 1 and label in taken:
            label += "#"
        taken.add(label)
        labels.append(label)
    return labels


def _require_shallow(schema: pa.Schema) -> None:
    """Raises ShardDamageError for a type whose values would be JSON of more than MAX_DEPTH levels.

    Newer versions of Arrow do not open such files; older ones do, and code here recurses over
    types.
    """
    level = list(schema)
    for _ in range(MAX_DEPTH):
        kinds = [plain_type(field.type) for field in level]
        level = [kind.field(place) for kind in kinds for place in range(kind.num_fields)]
        if not level:
            return
    raise ShardDamageError(
        ShardFault.UNREADABLE, f"a column is nested too deeply: more than {MAX_DEPTH} levels"
    )


def _find_column(
    schema: pa.Schema,
    part: str,
    named: str | None,
    usual: Sequence[str],
    fits: Callable[[pa.DataType], bool],
) -> str:
    """The column for one role: the one that the recipe names, else the first usual one present.

    Columns of a fitting type take precedence.
    """
    present = [name for name in ((named,) if named else usual) if name in schema.names]
    if not present:
        raise ShardDamageError(
            ShardFault.MISSING_COLUMN,
            f"no {part} column: looked for {', '.join((named,) if named else usual)}; "
            f"found {', '.join(schema.names)}; set pool.{part}_column",
        )
    for name in present:
        if fits(_unique_column(schema, name).type):
            return name
    raise ShardDamageError(
        ShardFault.MISTYPED_COLUMN,
        f"column {present[0]!r} is {schema.field(present[0]).type} and cannot hold the {part}"
        + (
            '; set pool.caption = "list" to read it'
            if _is_list_instead(schema, present, fits)
            else ""
        ),
    )


def _is_list_instead(
    schema: pa.Schema, present: Sequence[str], fits: Callable[[pa.DataType], bool]
) -> bool:
    return fits is _holds_text and _holds_texts(schema.field(present[0]).type)


def _unique_column(schema: pa.Schema, name: str) -> pa.Field:
    """The column of this name. Raises ShardDamageError if several have it."""
    places = schema.get_all_field_indices(name)
    if len(places) > 1:
        raise ShardDamageError(
            ShardFault.MISTYPED_COLUMN,
            f"{len(places)} columns are named {name!r}, so it is ambiguous",
        )
    return schema.field(places[0])


def _holds_images(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    return is_binary(kind) or is_image_struct(kind) or pa.types.is_null(kind)


def _holds_strings(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    return is_string(kind) or pa.types.is_null(kind)


def _holds_text(kind: pa.DataType) -> bool:
    """Strings, or bytes: old writers (Impala, Hive, Spark) do not annotate strings.

    All are checked for UTF-8.
    """
    return _holds_strings(kind) or (
        is_binary(plain_type(kind)) and not isinstance(kind, pa.BaseExtensionType)
    )


def _holds_texts(kind: pa.DataType) -> bool:
    if _holds_text(kind):
        return True
    kind = plain_type(kind)
    return is_list(kind) and _holds_text(kind.value_type)


def _holds_labels(kind: pa.DataType) -> bool:
    """Integers, and their conversions.

    Doubles in pandas (gaps), decimals in databases, strings in CSV.
    """
    plain = plain_type(kind)
    return (
        _holds_text(kind)
        or pa.types.is_integer(plain)
        or pa.types.is_floating(plain)
        or pa.types.is_decimal(plain)
    )


_HOLDS = {
    "text": _holds_text,
    "lines": _holds_texts,
    "list": _holds_texts,
    "label": _holds_labels,
}
"""Check of the caption's column type, by `pool.caption`."""
