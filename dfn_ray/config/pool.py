"""The sections on the input: `[pool]`, where samples are read, and `[rules]` on their metadata."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dfn_ray.config.checks import NonNegative, Positive, Text, Uris
from dfn_ray.config.sections import section


@section
class Pool:
    """`[pool]`: the image-text pairs that are read."""

    uri: Uris
    """Shards: URIs, globs (`*`), braces (`{00000..00099}`) or folders; one or several."""
    format: Literal["auto", "webdataset", "parquet", "folder"] = "auto"
    """`auto` detects the format from the first bytes of each shard: WebDataset or Parquet, the
    formats of img2dataset and DataComp pools. `folder`: `uri` is one or several folders with one
    subfolder of image files per class; each class folder is a shard."""
    caption: Literal["text", "lines", "list", "label"] = "text"
    """`text`: one caption, taken as it is. `lines`: several captions, one per line. `list`: several
    captions, none of them split: members `.txt`, `.0.txt`, `.1.txt`, ..., columns `caption_0`,
    `caption_1`, ..., or a text that is a JSON array. `lines` and `list` also read an array in a
    JSON member (`caption`, `text`, `captions` or `texts`) and a list column of Parquet, one caption
    per item. Blank and null captions are skipped; a caption that is not UTF-8 fails its sample, and
    so do more than 256 captions (`too_many_captions`). `label`: a class number, 0 or more, from a
    `cls` member, a `cls` or `label` column, or the position of the class folder."""
    image_column: Text | None = None
    """Parquet only: the column with the image bytes. None: the first of `image`, `jpg`, `png`,
    `webp`, `jpeg`."""
    text_column: Text | None = None
    """Parquet only: the column with the caption. None: the first of `text`, `caption`, `txt`, or
    for labels `cls`, `label`. With `caption = "list"` also several columns: `alt_*` stands for
    `alt_0`, `alt_1`, ...; None then prefers a list column, `captions` and `texts` among them, then
    `text_*`, `caption_*`, `txt_*`."""
    uid: Literal["auto", "derive"] = "auto"
    """`auto`: the sample's own `uid` (32 hexadecimal digits) if it has one, else a uid derived from
    shard and key. `derive`: always derived."""
    verify_page_checksums: bool = True
    """Parquet only: a page whose bytes do not match its stored checksum fails its row group. Set
    false only for files whose writer computes wrong checksums."""
    chunk_rows: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Samples in a chunk, 1 to 65,536. A chunk is the unit of work, of commit and of isolated
    decoding; no batch crosses it. A decoding task holds the pixels of a chunk three times (README,
    Object storage, has the formula)."""
    chunk_bytes: Annotated[int, Field(ge=2**20, le=2**30)] = 64 * 2**20
    """Bytes of images, captions, keys and metadata that end a chunk early, 1 MiB to 1 GiB."""
    max_image_bytes: Annotated[int, Field(ge=2**10, le=2**30)] = 64 * 2**20
    """Bytes of an encoded image, 1 KiB to 1 GiB. A larger image fails with `image_too_large` and is
    never read into memory."""
    max_caption_bytes: Annotated[int, Field(ge=1, le=2**24)] = 64 * 2**10
    """Bytes of all captions of a sample together, 1 to 16,777,216 (16 MiB). Longer ones fail with
    `caption_too_long`. CLIP reads about 300 bytes of a caption."""

    @property
    def several_captions(self) -> bool:
        """True if samples are read with a list of captions."""
        return self.caption in ("lines", "list")


@section
class Rules:
    """`[rules]`: metadata rules, applied before decoding; None turns a rule off.

    DataComp's basic filter without its language rule is `min_caption_words = 3, min_caption_chars
    = 6, min_image_side = 200, max_aspect_ratio = 3.0` (apply_filter.py: more than 2 words, more
    than 5 characters, smallest side >= 200, largest / smallest <= 3; on the original sizes).
    """

    min_caption_words: NonNegative | None = None
    """Minimum number of words, as `str.split` counts them, >= 0."""
    min_caption_chars: NonNegative | None = None
    """Minimum number of characters (Unicode code points), >= 0."""
    min_image_side: Positive | None = None
    """Smallest width and height in pixels, >= 1. The metadata's `original_width` and
    `original_height` are used if present, else the size of the image itself."""
    max_aspect_ratio: Annotated[float, Field(ge=1.0)] | None = None
    """Largest ratio of the longer side to the shorter side, >= 1."""
