"""Hostile images that take memory or time fail with a reason, or decode like others."""

from __future__ import annotations

import struct
import tracemalloc
import types
import zlib

import numpy as np
import pytest

from dfn_ray.images import structure
from dfn_ray.images.structure import ends_early, png_pixel_chunks, tiff_tile_pixels
from dfn_ray.pool.inspect import _header
from dfn_ray.schema import Reason
from tests.fuzz.hostile_images import (
    png_chunk,
    tiff_of_shared_values,
    tiled_tiff,
    with_chunks,
)
from tests.images.test_decode import decoded
from tests.network.conftest import encoded, photo


def zeros(pixels: int) -> bytes:
    return zlib.compress(bytes(pixels), 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4, 8, 9])
def test_a_tile_beyond_the_most_pixels_is_not_decoded(kind, order):
    side = 4000
    bomb = tiled_tiff(side, side, zeros(side * side), kind=kind, order=order)
    neighbour = encoded(photo(80, 60), "PNG")
    result = decoded(neighbour, bomb, neighbour, max_pixels=side * side - 1)
    assert result.reason == [None, Reason.TOO_MANY_PIXELS, None]
    assert tiff_tile_pixels(bomb) == side * side


def test_a_tile_that_is_larger_than_its_image_is_decoded():
    value = bytes([7]) * 256 * 256
    result = decoded(tiled_tiff(256, 256, zlib.compress(value), sides=40))
    assert result.reason == [None]
    assert (result.pixels[0][0] == 7).all()


def test_inspect_judges_tiles_as_decoding_does():
    assert _header(tiled_tiff(60_000, 60_000, b"x")) is Reason.TOO_MANY_PIXELS
    assert _header(tiled_tiff(512, 512, b"x")) == ("tiff", 1, 1)


@pytest.mark.parametrize("data", [b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(20)])
def test_a_tiff_without_a_directory_has_no_tiles(data):
    assert tiff_tile_pixels(data) == 0


def test_the_values_of_tiff_entries_are_gone_through_once(monkeypatch):
    """A TIFF with 4,096 entries that all point to the same megabyte."""
    unpacked = [0]

    def unpack_from(form, data, offset=0):
        unpacked[0] += struct.calcsize(form)
        return struct.unpack_from(form, data, offset)

    def iter_unpack(form, data):
        unpacked[0] += len(data)
        return struct.iter_unpack(form, data)

    counting = types.SimpleNamespace(
        unpack_from=unpack_from, iter_unpack=iter_unpack, calcsize=struct.calcsize,
        error=struct.error
    )  # fmt: skip
    monkeypatch.setattr(structure, "struct", counting)
    data = tiff_of_shared_values(4096, bytes(200_000))
    assert not ends_early(data, "TIFF")
    assert unpacked[0] < 5 * len(data)
    far = data[:-4] + b"\xff" * 4  # the last offset of the first list
    assert ends_early(far, "TIFF")


def test_empty_pixel_chunks_cost_a_png_nothing():
    png = encoded(photo(80, 60), "PNG")
    odd = with_chunks(png, (png_chunk(b"IDAT") + png_chunk(b"tEXt")) * 20_000)
    usual, result = decoded(png), decoded(odd)
    assert result.reason == [None]
    assert np.array_equal(usual.pixels[0], result.pixels[0])
    assert png_pixel_chunks(odd).count(b"IDAT") == 2


def test_a_png_of_many_small_chunks_takes_memory_in_proportion_to_it():
    odd = with_chunks(
        encoded(photo(80, 60), "PNG"), (png_chunk(b"PLTE") + png_chunk(b"tEXt")) * 20_000
    )
    tracemalloc.start()
    png_pixel_chunks(odd)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(odd)


@pytest.mark.parametrize("end", [png_chunk(b"IEND"), b""])
def test_a_png_of_nothing_but_empty_pixel_chunks_fails(end):
    png = encoded(photo(80, 60), "PNG")
    reasons = [
        decoded(png[: png.index(b"IDAT") - 4] + png_chunk(b"IDAT") * count + end).reason[0]
        for count in (1, 3000)
    ]
    assert reasons == [Reason.DECODE_ERROR if end else Reason.TRUNCATED_IMAGE] * 2
