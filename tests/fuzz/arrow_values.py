"""Columns of every Arrow type with its extremes, for Parquet."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from dfn_ray.testing.hostile_parquet import lethal_array
from tests.fuzz import odd_text

_INTEGERS = (
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
)
_UNITS = ("s", "ms", "us", "ns")
_ZONES = (None, "UTC", "+05:30", "Europe/Berlin", "Mars/Olympus", "", "-23:59")


def column(rng: Random, rows: int) -> pa.Array:
    """A column of a type with values at its extremes, some null."""
    array = rng.choice(_MAKERS)(rng, rows)
    assert len(array) == rows
    return array


def plain_column(rng: Random, rows: int) -> pa.Array:
    """A column that all readers read alike: integers, floats, strings, booleans, lists of them."""
    return rng.choice((_integers, _doubles, _strings, _booleans, _lists_of_integers))(rng, rows)


def _some(rng: Random, rows: int, value: Callable[[], Any]) -> list[Any]:
    return [None if rng.random() < 0.2 else value() for _ in range(rows)]


def _integers(rng: Random, rows: int) -> pa.Array:
    kind = rng.choice(_INTEGERS)
    signed = pa.types.is_signed_integer(kind)
    low = -(2 ** (kind.bit_width - 1)) if signed else 0
    high = 2 ** (kind.bit_width - signed) - 1
    return pa.array(
        _some(rng, rows, lambda: rng.choice((low, high, 0, 1, rng.randint(low, high)))), kind
    )


def _doubles(rng: Random, rows: int) -> pa.Array:
    values = (0.0, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf, 0.1)
    return pa.array(_some(rng, rows, lambda: rng.choice(values)), pa.float64())


def _floats(rng: Random, rows: int) -> pa.Array:
    return _doubles(rng, rows).cast(rng.choice((pa.float32(), pa.float16())), safe=False)


def _booleans(rng: Random, rows: int) -> pa.Array:
    return pa.array(_some(rng, rows, lambda: rng.random() < 0.5), pa.bool_())


def _strings(rng: Random, rows: int) -> pa.Array:
    kind = rng.choice((pa.string(), pa.large_string(), pa.string_view()))
    return pa.array(_some(rng, rows, lambda: odd_text.text(rng, 3)), kind)


def _broken_strings(rng: Random, rows: int) -> pa.Array:
    """Strings, some of which are not UTF-8."""
    values = _some(rng, rows, lambda: rng.choice((b"fine", b"caf\xe9", b"\xed\xa0\x80", b"\xff")))
    return pa.array(values, pa.binary()).view(pa.string())


def _binaries(rng: Random, rows: int) -> pa.Array:
    kind = rng.choice((pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)))
    return pa.array(_some(rng, rows, lambda: rng.randbytes(4)), kind)


def _timestamps(rng: Random, rows: int) -> pa.Array:
    kind = pa.timestamp(rng.choice(_UNITS), rng.choice(_ZONES))
    values = (
        0,
        -1,
        2**63 - 1,
        -(2**63) + 1,
        253_402_300_800 * 10**6,
        -62_135_596_801 * 10**6,
        10**15,
    )
    if kind.unit == "s":  # written as milliseconds
        values = (0, -1, 2**53, -(2**53), 253_402_300_800, -62_135_596_801)
    return pa.array(_some(rng, rows, lambda: rng.choice(values)), pa.int64()).view(kind)


def _dates(rng: Random, rows: int) -> pa.Array:
    days = (0, -1, 2**31 - 1, -(2**31), 2_932_897, -719_163)
    if rng.random() < 0.5:
        return pa.array(_some(rng, rows, lambda: rng.choice(days)), pa.int32()).view(pa.date32())
    return pa.array(_some(rng, rows, lambda: rng.choice(days) * 86_400_000), pa.int64()).view(
        pa.date64()
    )


def _times(rng: Random, rows: int) -> pa.Array:
    if rng.random() < 0.5:
        values = _some(rng, rows, lambda: rng.choice((0, 86_399_999, -1, 2**31 - 1)))
        return pa.array(values, pa.int32()).view(pa.time32("ms"))
    values = _some(rng, rows, lambda: rng.choice((0, 86_399_999_999, -1, 2**63 - 1)))
    return pa.array(values, pa.int64()).view(pa.time64(rng.choice(("us", "ns"))))


def _durations(rng: Random, rows: int) -> pa.Array:
    values = _some(rng, rows, lambda: rng.choice((0, -1, 2**63 - 1, -(2**63) + 1, 10**15)))
    return pa.array(values, pa.int64()).view(pa.duration(rng.choice(_UNITS)))


def _decimals(rng: Random, rows: int) -> pa.Array:
    precision = rng.choice((1, 9, 18, 38, 76))
    scale = rng.choice((0, precision // 2, precision))
    digits = "9" * precision
    values = ("0", f"{digits}E-{scale}", f"-{digits}E-{scale}")
    kind = pa.decimal256(precision, scale) if precision > 38 else pa.decimal128(precision, scale)
    return pa.array(_some(rng, rows, lambda: decimal.Decimal(rng.choice(values))), kind)


def _nulls(rng: Random, rows: int) -> pa.Array:
    del rng
    return pa.nulls(rows)


def _dictionaries(rng: Random, rows: int) -> pa.Array:
    inner = rng.choice((_strings, _integers, _dates))(rng, rows)
    if inner.type == pa.string_view():
        inner = inner.cast(pa.string())
    return inner.dictionary_encode()


def _lists_of_integers(rng: Random, rows: int) -> pa.Array:
    values = _some(rng, rows, lambda: [None if rng.random() < 0.2 else 7] * rng.randint(0, 3))
    return pa.array(values, rng.choice((pa.list_, pa.large_list))(pa.int64()))


def _lists(rng: Random, rows: int) -> pa.Array:
    sizes = [rng.randint(0, 3) for _ in range(rows)]
    inner = column(rng, sum(sizes))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if rng.random() < 0.5:
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), inner)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner)


def _fixed_lists(rng: Random, rows: int) -> pa.Array:
    size = rng.randint(1, 3)
    return pa.FixedSizeListArray.from_arrays(column(rng, rows * size), size)


def _structs(rng: Random, rows: int) -> pa.Array:
    names = [rng.choice(("a", "b", "bytes", "é", "")) + str(at) for at in range(rng.randint(1, 3))]
    mask = pa.array([rng.random() < 0.2 for _ in range(rows)], pa.bool_())
    return pa.StructArray.from_arrays([column(rng, rows) for _ in names], names, mask=mask)


def _maps(rng: Random, rows: int) -> pa.Array:
    sizes = [rng.randint(0, 2) for _ in range(rows)]
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    keys = pa.array([odd_text.word(rng) for _ in range(sum(sizes))], pa.string())
    if rng.random() < 0.3:
        keys = pa.array([rng.choice((-1, 0, 2_932_897)) for _ in keys], pa.int32()).view(
            pa.date32()
        )
    return pa.MapArray.from_arrays(offsets, keys, column(rng, sum(sizes)))


def _extensions(rng: Random, rows: int) -> pa.Array:
    if rng.random() < 0.4:
        inner = rng.choice((_binaries, _integers, _strings, _lists_of_integers, _structs_of_bytes))
        return lethal_array(inner(rng, rows))
    if rng.random() < 0.5:
        values = _some(rng, rows, lambda: rng.randbytes(16))
        return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))
    values = _some(rng, rows, lambda: rng.choice(('{"a": NaN}', "[1]", "no JSON")))
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(values, pa.string()))


def _structs_of_bytes(rng: Random, rows: int) -> pa.Array:
    return pa.StructArray.from_arrays([_binaries(rng, rows)], ["a"])


_MAKERS = (
    _integers, _doubles, _floats, _booleans, _strings, _broken_strings, _binaries, _timestamps,
    _timestamps, _dates, _times, _durations, _decimals, _nulls, _dictionaries, _lists, _fixed_lists,
    _structs, _maps, _extensions,
)  # fmt: skip
