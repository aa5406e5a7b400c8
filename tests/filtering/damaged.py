"""A pool of many good samples and some of every kind of damage, and the expected outcomes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from dfn_ray.testing.lethal import KILLER
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of

Expected = dict[tuple[str, str], str]
"""(shard, key) -> `status` or `status/reason`."""

PHOTOS = [photo(number) for number in range(64)]


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 600 megapixels."""
    header = struct.pack(">IIBBBBB", 30_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip


def unusual_images() -> dict[str, bytes]:
    """Images that are unusual but intact: all must be scored."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    rgb = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    frames = [rgb, rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return {
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "deep.png": encoded(deep, "PNG"),
        "palette.png": encoded(rgb.convert("P"), "PNG"),
        "alpha.png": encoded(rgb.convert("RGBA"), "PNG"),
        "animated.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "turned.jpg": encoded(rgb, "JPEG", exif=exif),
        "one-pixel.png": encoded(rgb.crop((0, 0, 1, 1)), "PNG"),
        "line.png": encoded(rgb.crop((0, 0, 1, 1)).resize((1, 5000)), "PNG"),
        "grey.jpg": encoded(rgb.convert("L"), "JPEG"),
    }


UNUSUAL = unusual_images()


def add_damage(  # noqa: PLR0911, PLR0912 - one case a kind
    tar: TarBuilder, key: str, kind: str, uid: str
) -> str:
    """Adds one sample of a kind to a tar; returns its expected outcome."""
    good = {"image": PHOTOS[0], "caption": "a fine caption", "metadata": {"uid": uid}}

    def sample(**changes) -> None:
        tar.sample(key, **{k: v for k, v in (good | changes).items() if v is not None})

    if kind in UNUSUAL:
        sample(image=UNUSUAL[kind], image_extension=kind.rpartition(".")[2])
        return "scored"
    match kind:
        case "truncated jpeg":
            sample(image=PHOTOS[1][:-60])
            return "failed/truncated_image"
        case "html":
            sample(image=b"<!doctype html><html><body>404</body></html>")
            return "failed/not_an_image"
        case "zero bytes":
            sample(image=b"")
            return "failed/empty_image"
        case "bomb":
            sample(image=bomb(), image_extension="png")
            return "failed/too_many_pixels"
        case "killer":
            sample(image=KILLER)
            return "failed/decode_crashed"
        case "no caption":
            sample(caption=None)
            return "failed/missing_caption"
        case "empty caption":
            sample(caption="  \n")
            return "failed/empty_caption"
        case "null caption":
            sample(caption=None, metadata={"uid": uid, "caption": None})
            return "failed/missing_caption"
        case "latin-1 caption":
            sample(caption="caf\xe9".encode("latin-1"))
            return "failed/caption_not_utf8"
        case "1 MB caption":
            sample(caption="word " * 200_000)
            return "failed/caption_too_long"
        case "broken json":
            sample(metadata=b'{"uid": "')
            return "failed/broken_json"
        case "bad uid":
            sample(metadata={"uid": "not-a-uid"})
            return "failed/bad_uid"
        case "repeated uid":
            sample(metadata={"uid": uid_of(0)})
            return "scored"
        case "no image":
            sample(image=None)
            return "failed/missing_image"
        case "two images":
            tar.member(f"{key}.png", UNUSUAL["palette.png"])
            sample()
            return "failed/several_images"
        case "unknown key":
            sample(metadata=None)
            return "scored"
    raise AssertionError(kind)


KINDS = (
    *UNUSUAL,
    "truncated jpeg", "html", "zero bytes", "bomb", "killer", "no caption", "empty caption",
    "null caption", "latin-1 caption", "1 MB caption", "broken json", "bad uid", "repeated uid",
    "no image", "two images", "unknown key",
)  # fmt: skip


def write_damaged_pool(folder: Path, *, shards: int, samples: int, damaged: float) -> Expected:
    """Writes tars of `samples`, a share of them damaged; returns the expected outcomes.

    One more tar is cut off in the middle of its 100th image, and one is empty.
    """
    folder.mkdir(parents=True)
    expected: Expected = {}
    every = round(1 / damaged)
    number = turn = 0
    for shard in range(shards):
        uri, tar = str(folder / f"{shard:05d}.tar"), TarBuilder()
        for index in range(samples):
            key = f"{number:08d}"
            if index % every == every // 2:
                expected[uri, key] = add_damage(tar, key, KINDS[turn % len(KINDS)], uid_of(number))
                turn += 1
            else:
                caption = f"good picture {number % 997}"
                tar.sample(
                    key,
                    image=PHOTOS[number % 64],
                    caption=caption,
                    metadata={"uid": uid_of(number)},
                )
                expected[uri, key] = "scored"
            number += 1
        Path(uri).write_bytes(tar.getvalue())

    uri, tar = str(folder / "cut-off.tar"), TarBuilder()
    for index in range(100):
        tar.sample(f"cut-{index:03d}", image=PHOTOS[index % 64], caption="cut off")
        expected[uri, f"cut-{index:03d}"] = "scored"
    cut = len(tar) - 1000
    tar.sample("cut-100", image=PHOTOS[0], caption="lost")
    Path(uri).write_bytes(tar.getvalue()[: cut + 1000 + 700])
    expected[uri, "cut-100"] = "failed/truncated_shard"
    (folder / "empty.tar").write_bytes(b"")
    return expected
