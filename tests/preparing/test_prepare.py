"""Decoding as in production: Arrow tables from readers, through `prepare`."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dfn_ray.config import Decode, Rules
from dfn_ray.on_ray.cells import Cell, column_array, pack, unpack
from dfn_ray.preparing.prepare import Preparation, pixels_column, prepare
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk, Note
from tests.images.test_decode import TRANSFORM
from tests.network.conftest import encoded, photo

PHOTO = photo(512, 384)


def rgb_coded() -> bytes:
    """A JPEG whose components are red, green and blue, declared only by its Adobe segment."""
    data = encoded(PHOTO, "JPEG", keep_rgb=True, quality=90)
    assert b"Adobe" in data[:200]
    return data


def multi_picture() -> bytes:
    return encoded(PHOTO, "MPO", save_all=True, append_images=[photo(64, 48, 1)], quality=90)


HEALTHY = {
    "4:2:0": encoded(PHOTO, "JPEG", quality=90),
    "4:4:4": encoded(PHOTO, "JPEG", quality=90, subsampling=0),
    "4:2:2": encoded(PHOTO, "JPEG", quality=90, subsampling=1),
    "progressive": encoded(PHOTO, "JPEG", quality=90, progressive=True),
    "restart markers": encoded(PHOTO, "JPEG", quality=90, restart_marker_blocks=4),
    "grey": encoded(PHOTO.convert("L"), "JPEG", quality=90),
    "progressive grey": encoded(PHOTO.convert("L"), "JPEG", quality=90, progressive=True),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG", quality=90),
    "rgb": rgb_coded(),
    "multi-picture": multi_picture(),
    "with a profile": encoded(PHOTO, "JPEG", quality=90, icc_profile=bytes(200_000)),
    "bytes behind its end": encoded(PHOTO, "JPEG", quality=90) + b"\r\n\0\0",
}


def cell_of(images: list[bytes]) -> Cell:
    """A cell as read from the object store."""
    count = len(images)
    values = {
        "uid": ["0" * 32] * count, "row": range(count), "key": map(str, range(count)),
        "image": images, "text": ["a caption"] * count,
    }  # fmt: skip
    samples = pa.table(
        [
            pa.array(list(values[field.name]), field.type)
            if field.name in values
            else pa.nulls(count, field.type)
            for field in SAMPLE_SCHEMA
        ],
        schema=SAMPLE_SCHEMA,
    )
    cell = Cell(chunk=Chunk(shard="s", first_row=0, rows=count, last=True), samples=samples)
    return next(unpack(pack([cell])))


def prepared(images: list[bytes], **decode) -> tuple[Cell, np.ndarray]:
    preparation = Preparation(Rules(), Decode(**decode), (TRANSFORM,), ())
    cell = prepare(cell_of(images), preparation=preparation)
    assert cell.inputs is not None
    return cell, column_array(cell.inputs[pixels_column(0)], np.uint8, (64, 64, 3))


def test_fast_decodes_every_healthy_jpeg_at_a_fraction_and_close_to_exact():
    fast_cell, fast = prepared(list(HEALTHY.values()), mode="fast")
    exact_cell, exact = prepared(list(HEALTHY.values()))
    assert len(fast) == len(exact) == len(HEALTHY)
    assert fast_cell.chunk.notes == exact_cell.chunk.notes == {}
    for name, one, other in zip(HEALTHY, fast, exact, strict=True):
        difference = np.abs(one.astype(int) - other)
        assert difference.any(), f"{name}: decoded exactly"
        assert difference.mean() < 2, name
        assert np.percentile(difference, 99) <= 10, name


def test_fast_decodes_other_formats_exactly_and_counts_nothing():
    images = [encoded(photo(200, 150), form) for form in ("PNG", "WEBP", "BMP", "GIF")]
    cell, fast = prepared(images, mode="fast")
    assert np.array_equal(fast, prepared(images)[1])
    assert cell.chunk.notes == {}


def test_what_fast_cannot_decode_is_decoded_exactly_and_counted():
    whole = HEALTHY["4:2:0"]
    # Stray bytes in front of the end mark: libjpeg warns, and so does the fast way, by refusing.
    stray = whole[:-2] + b"\x12\x34\x56" * 40 + whole[-2:]
    images = [stray, whole, whole[: len(whole) // 2]]
    cell, fast = prepared(images, mode="fast")
    assert cell.chunk.notes == {Note.DECODED_EXACTLY: 2, Note.TRUNCATED_SCORED: 1}
    exact = prepared(images)[1]
    assert np.array_equal(fast[[0, 2]], exact[[0, 2]])
    assert (fast[1] != exact[1]).any()


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_notes_travel_with_the_chunk_and_add_to_those_of_the_reader(mode):
    cut = HEALTHY["4:2:0"][:-2000]
    cell = cell_of([cut, cut])
    read = Cell(chunk=cell.chunk.with_notes({Note.METADATA_REPLACED: 1}), samples=cell.samples)
    preparation = Preparation(Rules(), Decode(mode=mode), (TRANSFORM,), ())
    done = next(unpack(pack([prepare(read, preparation=preparation)])))
    expected = {"metadata_replaced": 1, "truncated_scored": 2}
    assert done.chunk.notes == expected | ({"decoded_exactly": 2} if mode == "fast" else {})
    assert json.loads(json.dumps(done.chunk.to_json()))["notes"] == done.chunk.notes


def test_a_small_jpeg_is_decoded_the_fast_way_in_full():
    small = encoded(Image.new("RGB", (64, 64), (10, 200, 30)), "JPEG")
    cell, pixels = prepared([small], mode="fast")
    assert cell.chunk.notes == {}
    assert np.abs(pixels[0].astype(int) - (10, 200, 30)).max() <= 2
