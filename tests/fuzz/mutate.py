"""Damage to bytes. Each mutation records the damaged range, so that the rest can be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_MAX_SPAN_BYTES = 2048
"""Maximum of damaged bytes: several tar members or Parquet pages of the small inputs here."""
_EXTREMES = (
    b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\x80",
    b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", b"77777777777",
    b"-0000000001", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\xff\xff\xff\xff\x0f",
    b"\xff" * 9 + b"\x01",
)  # fmt: skip
"""Lengths as binary integers in both byte orders, octal and base-256 digits of a tar, varints of
Thrift."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """Damaged bytes. Those before `start` are intact, and with `in_place` those from `stop` on."""

    data: bytes
    note: str
    start: int
    stop: int
    in_place: bool = True
    cut: bool = False
    """Nothing follows `start`."""


def mutate(rng: Random, data: bytes, region: tuple[int, int] | None = None) -> Mutation:
    """`data` with one damage that begins inside `region` (default: anywhere)."""
    low, high = region or (0, len(data))
    start = rng.randrange(low, max(high, low + 1))
    stop = min(start + rng.choice((1, 4, 16, 64, rng.randint(1, _MAX_SPAN_BYTES))), len(data), high)
    return rng.choice(_DAMAGES)(rng, data, start, stop)


def cut(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    """Everything from `start` on is removed."""
    del rng, stop
    return Mutation(
        data=data[:start], note=f"cut at {start}", start=start, stop=start, in_place=False, cut=True
    )


def _flipped(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if start < stop:
            damaged[rng.randrange(start, stop)] ^= 1 << rng.randrange(8)
    return _in_place(bytes(damaged), start, stop, "bits flipped")


def _zeroed(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    del rng
    return _in_place(data[:start] + bytes(stop - start) + data[stop:], start, stop, "bytes zeroed")


def _noisy(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    return _in_place(data[:start] + rng.randbytes(stop - start) + data[stop:], start, stop, "noise")


def _spliced(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    source = rng.randrange(max(1, len(data) - (stop - start)))
    piece = data[source : source + stop - start]
    return _in_place(data[:start] + piece + data[start + len(piece) :], start, stop, "spliced")


def _extreme(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    del stop
    value = rng.choice(_EXTREMES)[: len(data) - start]
    damaged = data[:start] + value + data[start + len(value) :]
    return _in_place(damaged, start, start + len(value), f"extreme {value.hex()}")


def _inserted(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    piece = rng.choice((rng.randbytes(stop - start), bytes(stop - start)))
    return _moved(data[:start] + piece + data[start:], start, "inserted")


def _repeated(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    return _moved(
        data[:stop] + data[start:stop] * rng.choice((1, 1, 3, 20)) + data[stop:], stop, "repeated"
    )


def _removed(rng: Random, data: bytes, start: int, stop: int) -> Mutation:
    del rng
    return _moved(data[:start] + data[stop:], start, f"{stop - start} bytes removed")


def _in_place(data: bytes, start: int, stop: int, note: str) -> Mutation:
    return Mutation(data=data, note=f"{note} at {start}..{stop}", start=start, stop=stop)


def _moved(data: bytes, start: int, note: str) -> Mutation:
    return Mutation(data=data, note=f"{note} at {start}", start=start, stop=start, in_place=False)


_DAMAGES: tuple[Callable[[Random, bytes, int, int], Mutation], ...] = (
    _flipped, _flipped, _zeroed, _noisy, _spliced, _extreme, _extreme, _inserted, _repeated,
    _removed, cut, cut,
)  # fmt: skip
