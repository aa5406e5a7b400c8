"""A walk through a Parquet footer without Arrow: Thrift's compact protocol, as Arrow reads it.

It treats odd input exactly like Arrow's generated code (field numbers are 16 bits, a list's
elements are what the field requires whatever the list states, both values of a repeated field are
seen), so that Arrow sees nothing that this walk misses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

_SCHEMA_KEY = b"ARROW:schema"
_MAX_DEPTH = 64  # Thrift's own limit
_VALUES_IN_BYTES = {1: 0, 2: 0, 3: 1, 7: 8, 13: 16}
"""Booleans (encoded in their type), byte, double, uuid."""
_VARINTS = (4, 5, 6)
_BINARY, _LIST, _SET, _MAP, _STRUCT = range(8, 13)
_NESTED = (_LIST, _SET, _MAP, _STRUCT)
"""Types of Thrift's compact protocol."""

_Take = Callable[[int], int]
"""Reads a value that begins at a byte; returns its end."""


@dataclass(slots=True)
class FooterWalk:
    """Walks through a footer (FileMetaData of parquet.thrift) as Arrow does."""

    data: bytes
    encrypted: set[int] = field(default_factory=set)
    """Positions of primitive columns that are encrypted in some row group."""
    pairs: list[tuple[list[slice], list[slice]]] = field(default_factory=list)
    """Slices of the key and the value of each pair of the key-value metadata."""
    schemas: list[tuple[list[slice], list[slice]]] = field(default_factory=list)
    """Slices of the keys and values of Arrow schemas; several of each are odd but possible."""

    def walk(self) -> None:
        """Walks through the footer.

        Raises IndexError if it ends early, ArrowInvalid if it is not Thrift.
        """
        self._struct(0, {4: (_LIST, self._row_groups), 5: (_LIST, self._key_values)})

    def _row_groups(self, at: int) -> int:
        return self._structs(at, lambda _: {1: (_LIST, self._columns)})

    def _columns(self, at: int) -> int:
        def encrypted(place: int, kind: int) -> tuple[int, _Take]:
            def note(at: int) -> int:
                self.encrypted.add(place)
                return self._skip(at, kind)

            return kind, note

        # crypto_metadata, encrypted_column_metadata
        return self._structs(
            at, lambda place: {8: encrypted(place, _STRUCT), 9: encrypted(place, _BINARY)}
        )

    def _key_values(self, at: int) -> int:
        pairs = self.pairs

        def note_pair(_: int) -> Mapping[int, tuple[int, _Take]]:
            keys: list[slice] = []
            values: list[slice] = []
            pairs.append((keys, values))
            return {
                1: (_BINARY, lambda at: self._text(at, keys)),
                2: (_BINARY, lambda at: self._text(at, values)),
            }

        at = self._structs(at, note_pair)
        for keys, values in pairs:
            if named := [key for key in keys if self.data[key] == _SCHEMA_KEY]:
                self.schemas.append((named, values))
        return at

    def _text(self, at: int, found: list[slice]) -> int:
        length, at = self._size(at)
        found.append(slice(at, at + length))
        return self._inside(at + length)

    def _structs(self, at: int, takes: Callable[[int], Mapping[int, tuple[int, _Take]]]) -> int:
        """Walks through a list; its elements are read as structs, whatever it states."""
        size, at = self._list_size(at)
        for place in range(size):
            at = self._struct(at, takes(place))
        return at

    def _struct(self, at: int, takes: Mapping[int, tuple[int, _Take]]) -> int:
        """Walks through a struct; reads fields of these numbers and types, skips all others."""
        number = 0
        while True:
            header = self.data[at]
            kind, at = header & 15, at + 1
            if not kind:
                return at
            if header > 15:
                number += header >> 4
            else:
                value, at = self._varint(at)
                number = (value >> 1) ^ -(value & 1)
            number = (number + 2**15) % 2**16 - 2**15  # an int16, as in Thrift
            wanted, take = takes.get(number, (0, None))
            at = take(at) if take and wanted == kind else self._skip(at, kind)

    def _skip(self, at: int, kind: int, depth: int = 0) -> int:
        if kind in _VARINTS:
            data = self.data
            while data[at] > 127:
                at += 1
            return at + 1
        if kind == _BINARY:
            length, at = self._size(at)
            return self._inside(at + length)
        if kind in _NESTED:
            if depth > _MAX_DEPTH:
                raise pa.ArrowInvalid("its footer is nested too deeply")
            return self._skip_nested(at, kind, depth)
        if kind not in _VALUES_IN_BYTES:
            raise pa.ArrowInvalid(f"its footer holds a field of type {kind}")
        return self._inside(at + _VALUES_IN_BYTES[kind])

    def _skip_nested(self, at: int, kind: int, depth: int) -> int:
        data = self.data
        if kind == _MAP:
            size, at = self._size(at)
            kinds = data[at] if size else 0
            return self._elements(at + (size > 0), size, (kinds >> 4, kinds & 15), depth)
        if kind in (_LIST, _SET):
            element = data[at] & 15
            size, at = self._list_size(at)
            return self._elements(at, size, (element,), depth)
        while True:
            header = data[at]
            kind, at = header & 15, at + 1
            if not kind:
                return at
            if header < 16:
                at = self._skip(at, _VARINTS[0])
            if kind in _VARINTS and data[at] < 128:  # the usual case
                at += 1
            else:
                at = self._skip(at, kind, depth + 1)

    def _elements(self, at: int, size: int, kinds: tuple[int, ...], depth: int) -> int:
        for _ in range(size):
            for kind in kinds:
                at = self._skip(at, kind, depth + 1) if kind > 2 else at + 1
            self._inside(at)
        return at

    def _list_size(self, at: int) -> tuple[int, int]:
        size = self.data[at] >> 4
        return (size, at + 1) if size < 15 else self._size(at + 1)

    def _size(self, at: int) -> tuple[int, int]:
        value, at = self._varint(at)
        if value >= 2**31:
            raise pa.ArrowInvalid("its footer states a size below 0")
        return value, at

    def _varint(self, at: int) -> tuple[int, int]:
        """A number of 32 bits, reduced like Thrift's if it has more, and its end."""
        value = shift = 0
        while (byte := self.data[at]) > 127:
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if shift > 63:
                raise pa.ArrowInvalid("its footer holds a number of more than 64 bits")
        return (value | byte << shift) & 0xFFFFFFFF, at + 1

    def _inside(self, at: int) -> int:
        if at > len(self.data):
            raise IndexError(at)
        return at
