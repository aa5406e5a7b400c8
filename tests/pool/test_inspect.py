from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.pool import inspect_pool
from dfn_ray.testing.sample_pools import TarBuilder, jpeg_bytes, write_tar_shard

UID = "0123456789abcdef" * 2


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.fixture
def pool(tmp_path):
    for number in range(4):
        write_tar_shard(
            f"{tmp_path}/{number:05d}.tar",
            [
                {
                    "key": f"{i:03d}",
                    "image": jpeg_bytes(10 + i, 20),
                    "caption": "x" * (i + 1),
                    "metadata": {"uid": UID} if i == 3 else None,
                }
                for i in range(10)
            ],
        )
    return Pool(uri=(str(tmp_path),))


def test_a_report_counts_what_is_there(pool):
    report = inspect_pool(pool)
    assert (report.shards, report.shards_inspected, report.samples_seen) == (4, 4, 40)
    assert report.samples_estimated == 40
    assert report.formats == {"tar": 4}
    assert report.statuses == {"readable": 40}
    assert report.image_formats == {"jpeg": 40}
    assert report.quantiles["width"] == {"min": 10, "p5": 10, "p50": 14.5, "p95": 19, "max": 19}
    assert report.quantiles["caption_chars"]["max"] == 10
    assert report.duplicate_uids == 3
    assert (report.listed_faults, report.shard_faults) == ({}, {})


def test_examples_are_readable_samples_of_different_shards(pool):
    report = inspect_pool(pool, shards=2, samples=3)
    assert [(row.key, row.width, row.height, row.caption) for row in report.examples] == [
        ("000", 10, 20, "x"),
        ("001", 11, 20, "xx"),
        ("000", 10, 20, "x"),
    ]
    assert len({row.uid for row in report.examples}) == 3


def test_the_estimate_extrapolates_by_bytes(tmp_path, pool):
    report = inspect_pool(pool, shards=1)
    assert report.samples_seen == 10
    assert report.samples_estimated == 40
    chunked = inspect_pool(Pool(uri=pool.uri, chunk_rows=5), shards=2)
    assert chunked.samples_seen == 10
    assert 30 <= chunked.samples_estimated <= 50


def test_shards_that_cannot_be_read_weigh_in_the_estimate_by_their_size(tmp_path):
    good = TarBuilder()
    for number in range(10):
        good.sample(f"{number}", image=b"image", caption="c")
    (tmp_path / "0.tar").write_bytes(good.getvalue())
    (tmp_path / "1.tar").write_bytes(b"<html>" * 100_000)
    assert inspect_pool(Pool(uri=(str(tmp_path),))).samples_estimated == 10


def test_what_is_bad_is_counted_and_named(tmp_path):
    tar = TarBuilder().sample("0", caption="no image").sample("1", image=b"<html>", caption="c")
    tar.sample("2", image=png_of(30_000, 20_000), caption="c", image_extension="png")
    tar.sample("3", image=png_of(10_000, 10_000), caption="c", image_extension="png")
    (tmp_path / "0.tar").write_bytes(tar.getvalue(end=False))
    (tmp_path / "1.tar").write_bytes(b"<html>")
    (tmp_path / "2.tar").write_bytes(tar.getvalue())
    report = inspect_pool(Pool(uri=(f"{tmp_path}/{{0..3}}.tar",)), samples=2)
    assert report.listed_faults == {"missing_shard": 1}
    assert report.shard_faults["0.tar"].startswith("truncated_shard: ends at byte")
    assert report.shard_faults["1.tar"].startswith("unreadable_shard: neither tar nor Parquet")
    assert report.formats == {"tar": 2, "unknown": 1}
    assert report.statuses == {"missing_image": 2, "not_an_image": 2, "too_many_pixels": 4}
    assert (report.image_faults, report.image_formats) == (
        {"not_an_image": 2, "too_many_pixels": 4},
        {},
    )
    assert report.examples == ()
    text = "\n".join(report.lines())
    for part in ("4 (", "1 missing_shard", "2 missing_image", "1.tar", "4 too_many_pixels"):
        assert part in text


def test_images_are_not_decoded(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (1, 2, 3)).save(file, "JPEG")
    write_tar_shard(
        f"{tmp_path}/0.tar", [{"key": "0", "image": file.getvalue()[:-20], "caption": "c"}]
    )
    (example,) = inspect_pool(Pool(uri=(str(tmp_path),))).examples
    assert (example.width, example.height) == (64, 48)


def test_a_pool_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError):
        inspect_pool(Pool(uri=(f"{tmp_path}/*.tar",)))


def test_images_that_are_not_decoded_are_counted_by_reason_and_large_texts_cost_none(tmp_path):
    text = b"zTXtc\0\0" + zlib.compress(bytes(3_000_000))
    png = io.BytesIO()
    Image.new("RGB", (64, 48)).save(png, "PNG")
    data = png.getvalue()
    crc = struct.pack(">I", zlib.crc32(text))
    large_text = data[:33] + struct.pack(">I", len(text) - 4) + text + crc + data[33:]
    avif = io.BytesIO()
    Image.new("RGB", (32, 24)).save(avif, "AVIF")
    images = [
        large_text,
        avif.getvalue(),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\xff\x0a\xfa\x7f",
    ]
    shard = [
        {"key": str(number), "image": image, "caption": "c"} for number, image in enumerate(images)
    ]
    write_tar_shard(f"{tmp_path}/0.tar", shard)
    report = inspect_pool(Pool(uri=(str(tmp_path),)))
    assert report.statuses == {"readable": 2, "unsupported_image": 2}
    assert report.image_formats == {"png": 1, "avif": 1}
    assert report.image_faults == {"unsupported_image": 2}
    assert report.quantiles["width"]["max"] == 64


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image"),
        (b'{"error": "rate limited"}', "not_an_image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not_an_image"),
        (bytes(range(256)), "not_an_image"),
        (b"%PDF-1.7 ", "not_an_image"),
        (b"\xff\xd8\xff broken", "decode_error"),
        (b"\x89PNG\r\n\x1a\n", "decode_error"),
        (b"GIF89a", "decode_error"),
    ],
)
def test_bytes_that_are_no_image_are_counted_by_reason_in_report_and_print(tmp_path, data, reason):
    images = [jpeg_bytes(10, 20)] * 8 + [data]
    write_tar_shard(
        f"{tmp_path}/0.tar",
        [{"key": str(n), "image": image, "caption": "c"} for n, image in enumerate(images)],
    )
    report = inspect_pool(Pool(uri=(str(tmp_path),)), samples=9)
    assert report.image_faults == {reason: 1}
    assert report.statuses == {"readable": 8, reason: 1}
    assert len(report.examples) == 8
    assert (
        f"images       88.8% of 9 can be opened: 8 jpeg; not opened: 1 {reason}" in report.lines()
    )


def test_a_share_of_all_but_one_image_is_not_rounded_to_all(tmp_path):
    images = [jpeg_bytes(10, 20)] * 2999 + [b"<html>"]
    write_tar_shard(
        f"{tmp_path}/0.tar",
        [{"key": str(n), "image": image, "caption": "c"} for n, image in enumerate(images)],
    )
    report = inspect_pool(Pool(uri=(str(tmp_path),), chunk_rows=3000))
    assert "99.9% of 3,000 can be opened" in "\n".join(report.lines())
