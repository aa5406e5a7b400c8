"""One list defines images: by ending, by first bytes, and by the ending of exports."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import Image

from dfn_ray.images.formats import (
    FORMATS,
    IMAGE_EXTENSIONS,
    UNSUPPORTED_EXTENSIONS,
    extension_of,
    image_format,
)


def written(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(file, format)
    return file.getvalue()


def iso(major: bytes, *compatible: bytes) -> bytes:
    brands = major + b"\0\0\0\0" + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08meta" * 4


ENDINGS = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
    "AVIF": "avif", "JPEG2000": "jp2", "ICO": "ico", "ICNS": "icns", "QOI": "qoi",
}  # fmt: skip


@pytest.mark.parametrize("format", ENDINGS)
def test_what_pillow_writes_is_found_by_its_first_bytes_and_has_its_own_ending(format):
    data = written(format)
    assert extension_of(data) == ENDINGS[format]
    form = image_format(memoryview(data))
    assert form is not None
    assert form.name == format
    supported = ENDINGS[format] in IMAGE_EXTENSIONS
    assert (form.decoded, ENDINGS[format] in UNSUPPORTED_EXTENSIONS) == (supported, not supported)


FOREIGN = {
    "heic": iso(b"heic", b"mif1", b"heic"),
    "heif container": iso(b"mif1", b"heic", b"mif1"),
    "heif without a codec": iso(b"mif1", b"miaf"),
    "heif sequence": iso(b"msf1", b"hevc"),
    "jxl codestream": b"\xff\x0a\xfa\x7f\x01\x90\x08\x06",
    "jxl container": b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
    "jp2 codestream": b"\xff\x4f\xff\x51\0\x2f",
    "jpeg xr": b"II\xbc\x01\x20\0\0\0",
    "psd": b"8BPS\0\x01\0\0\0\0\0\0\0\x03",
    "ppm": b"P6\n# a comment\n4 4\n255\n" + bytes(48),
    "exr": b"\x76\x2f\x31\x01\x02\0\0\0",
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "svg": b'<?xml version="1.0"?>\n<!-- drawn by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "bare svg": b"\n<svg width='4'>",
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_an_image_that_nothing_decodes_is_unsupported(data):
    form = image_format(data)
    assert form is not None
    assert not form.decoded


@pytest.mark.parametrize(
    "data",
    [iso(b"avif", b"mif1", b"heic"), iso(b"mif1", b"avif", b"heic"), iso(b"msf1", b"avis")],
    ids=["major brand", "in a container", "sequence"],
)
def test_the_brands_tell_avif_from_heif(data):
    assert extension_of(data) == "avif"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 64, b"<!DOCTYPE html><html><body><svg></svg></body></html>", b"%PDF-1.7",
        b"%!PS-Adobe-3.0",
        b"BMW drives through the rain, seen from the side of a road", b"P6 is not a picture",
        b"GIF89", b"not an image",
        iso(b"isom", b"mp42"), b"RIFF\x10\0\0\0WAVEfmt ",
    ],
)  # fmt: skip
def test_what_is_no_image_has_no_format(data):
    assert image_format(data) is None
    assert extension_of(data) is None


_TOKENS = (
    b"<!---->", b"<!--", b"-->", b"<!-- -->\n", b" ", b"<?xml ?>", b"<!DOCTYPE svg>",
    b"<!DOCTYPE svg", b">", b"<",
    b"#", b"#\n", b"\n", b"1", b"\0", b"\xef\xbb\xbf", b"-",
)  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", [b"", b"<?xml", b"<!--", b"P6", b"#?", b"BM", b"\0\0\x01\0"])
def test_no_head_made_of_repeated_pieces_keeps_a_signature_busy(start):
    """A regular expression that tries every split of a prolog would take practically forever."""
    for one in _TOKENS:
        for other in _TOKENS:
            head = (start + (one * 3 + other) * 8192)[:8192]
            form = image_format(head)
            assert form is None or form.name in ("NETPBM", "ICO")


@pytest.mark.parametrize(
    "data",
    [
        b"<!---->" * 1000 + b"<svg>", b"<!--" + b"-" * 5000 + b"--><svg/>x <svg>",
        b"<!-- -- > -->\n<svg\t>",
        b"\xef\xbb\xbf<?xml version='1.0'?><!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'>\n"
        b"<!-- > --><svg>",
    ],
    ids=["many comments", "not first", "marks in a comment", "all of it"],
)  # fmt: skip
def test_svg_is_found_behind_its_prolog(data):
    form = image_format(data)
    is_first = b"/>x" not in data
    assert (form is not None and form.name == "SVG") == is_first


def test_every_ending_belongs_to_one_format():
    endings = [ending for form in FORMATS for ending in form.endings]
    assert len(endings) == len(set(endings))
    assert {"jpg", "jpe", "jfif", "avif", "avifs", "apng", "dib", "tif", "tiff"} <= IMAGE_EXTENSIONS
    assert {"heic", "heif", "jxl", "jp2", "j2k", "psd", "svg"} <= UNSUPPORTED_EXTENSIONS


def test_the_list_loads_neither_pillow_nor_torch():
    code = "import sys, dfn_ray.images.formats; print({'PIL', 'torch', 'ray'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("format", [form.name for form in FORMATS if form.decoded])
def test_an_exported_image_keeps_its_bytes_under_the_ending_of_its_format(format):
    from dfn_ray.filtering.subset.export_subset import _members

    data = written(format)
    row = {"image": data, "text": "a card", "metadata": None, "uid": "0" * 32}
    assert next(_members(row)) == (ENDINGS[format], data)
    assert next(_members(row | {"image": b"no image"}))[0] == "jpg"
