"""Headers of Parquet pages, read without their pages: Thrift's compact protocol, as used there."""

from __future__ import annotations

from typing import Any, NamedTuple

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)
"""Kinds of page (parquet.thrift, PageType)."""

_MAX_HEADER_BYTES = 16 * 2**20  # Arrow's own bound; statistics of long values can fill it
_MAX_DEPTH = 8  # a header nests three deep
_MAX_VARINT_BYTES = 10  # of 64 bits
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS = (_I16, _I32, _I64)


class PageHeader(NamedTuple):
    """The description of a page, available before its bytes. Sizes in bytes."""

    kind: int
    size: int
    """Bytes of the header itself."""
    uncompressed: int
    compressed: int
    values: int
    """Values in the page, including nulls."""
    encoding: int


class BrokenHeaderError(ValueError):
    """Bytes that are not a page header."""


def page_header(data: memoryview) -> PageHeader | None:
    """The page header at the start of `data`; None if `data` is incomplete.

    Raises BrokenHeaderError.
    """
    try:
        fields, size = _struct(data, 0, 0)
    except IndexError:
        if len(data) > _MAX_HEADER_BYTES:
            raise BrokenHeaderError(f"no end of a page header in {len(data)} bytes") from None
        return None
    kind, uncompressed, compressed = (_count(fields, number) for number in (1, 2, 3))
    details = fields.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}.get(kind, 6), {})
    if not isinstance(details, dict):
        raise BrokenHeaderError("a page header of another form")
    is_read = kind != INDEX_PAGE  # index pages have no such fields
    values = _count(details, 1) if is_read else 0
    encoding = _count(details, 4 if kind == DATA_PAGE_V2 else 2) if is_read else 0
    return PageHeader(kind, size, uncompressed, compressed, values, encoding)


def _count(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if type(value) is not int or not 0 <= value < 2**31:
        raise BrokenHeaderError(f"{value} as field {number} of a page header")
    return value


def _struct(data: memoryview, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by number, and its end. Raises IndexError if `data` is too short."""
    if depth > _MAX_DEPTH:
        raise BrokenHeaderError("a page header nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        delta = kind >> 4
        at += 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        kind &= 15
        if kind in _INTEGERS and (byte := data[at]) < 128:  # as nearly all are
            fields[number], at = (byte >> 1) ^ -(byte & 1), at + 1
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: memoryview, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _INTEGERS:
        return _zigzag(data, at)
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, _inside(data, at + length)
    if kind in (_BYTE, _DOUBLE):
        return None, _inside(data, at + (1 if kind == _BYTE else 8))
    raise BrokenHeaderError(
        f"a field of type {kind} in a page header"
    )  # page headers have no lists and maps


def _inside(data: memoryview, at: int) -> int:
    if at > len(data):
        raise IndexError(at)
    return at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise BrokenHeaderError("a number of more than 64 bits in a page header")


def _zigzag(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
