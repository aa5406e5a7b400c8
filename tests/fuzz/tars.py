"""Target: tars. Valid samples match those of `tarfile`; for damaged tars see tar_damage.py."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import regex

from dfn_ray.config import Pool
from dfn_ray.schema import Reason, ShardFault
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.hostile_tars import hostile_tar
from tests.fuzz.shards import Readout, Row, read_file
from tests.fuzz.tar_damage import damaged_tar
from tests.fuzz.tar_writer import EMPTY_SIZE, FLAVOURS, SPARSE, Tar, filled, gzipped, unpacked

_ENDINGS = (
    "jpg",
    "jpg",
    "png",
    "JPG",
    "jpeg",
    "webp",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "avif",
    "jfif",
    "jpe",
)
_OTHERS = (
    "__MACOSX/{}.jpg", "._{}.jpg", "{}/", "{}.npz", "{}.mp3", "{}", "{}.jpg.aes",
    ".hidden/._{}.txt", "{}.syn.json",
)  # fmt: skip
"""Names of members that are not part of a sample."""
_UNSEEN = regex.compile(r"[\s\0\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]*")


@dataclass(kw_only=True)
class Parts:
    """The members of one key, as an independent reader finds them."""

    images: list[bytes] = field(default_factory=list)
    captions: list[bytes] = field(default_factory=list)
    unsafe: bool = False
    linked: bool = False
    image_linked: bool = False
    odd: bool = False
    """Sparse: it may fail, with a reason."""


def make(rng: Random) -> Case:
    """A valid tar, a damaged one or a hostile one."""
    pool = Pool(uri=("x",), chunk_rows=rng.choice((1, 2, 3, 8, 256)))
    seed = rng.getrandbits(64)
    if rng.random() < 0.08:
        return hostile_tar(rng, pool, seed)
    if rng.random() < 0.5:
        tar, layout, flavours = _valid(rng)
        data, packing = _packed(rng, tar)
        name = f"0.{packing}"

        def check(folder: Path) -> Counter[str]:
            readout = read_file(data, folder, name, pool, Random(seed))
            _check_valid(readout, data, tar, layout, packing)
            return readout.outcomes

        note = (
            f"valid {packing}, {layout}, {', '.join(sorted(flavours))}, chunks of {pool.chunk_rows}"
        )
        return Case(valid=True, note=note, files={name: data}, check=check)
    return damaged_tar(rng, pool, seed)


def _valid(rng: Random) -> tuple[Tar, str, set[str]]:
    """A tar of complete samples, its layout, and the flavours of its members."""
    flavours = set(rng.sample(FLAVOURS, rng.randint(1, 3)))
    layout = rng.choice(("contiguous", "contiguous", "contiguous", "images first", "shuffled"))
    files: list[tuple[str, bytes]] = []
    for number in range(rng.choice((0, 1, 2, 5, 12))):
        files += _sample(rng, number)
    if layout == "images first":
        files.sort(key=lambda item: item[0].rpartition(".")[2].lower() not in _ENDINGS)
    elif layout == "shuffled":
        rng.shuffle(files)
    tar = Tar()
    if rng.random() < 0.1:
        tar.end(rng.choice((1, 2)))  # zeros in front
    for name, data in files:
        if rng.random() < 0.15:
            _add_other(rng, tar)
        tar.file(name, data, rng.choice(sorted(flavours)), rng)
        if rng.random() < 0.05:
            tar.other(name, rng.choice((tarfile.LNKTYPE, tarfile.SYMTYPE)), rng)
        if rng.random() < 0.04:
            tar.end()  # archives that were appended to each other
    tar.end(rng.choice((2, 2, 2, 1, 20)))
    return tar, layout, flavours


def _sample(rng: Random, number: int) -> list[tuple[str, bytes]]:
    """Members of a sample: mostly an image and a caption, in either order."""
    stem = rng.choice((
        lambda: f"{number:06d}",
        lambda: f"{odd_text.file_name(rng)}{number}",
        lambda: f"v1.{number}/img.{number:03d}.jpeg",
        lambda: f"./{number}",
        lambda: f"{'deep/' * rng.randint(1, 60)}{number}",
        lambda: f"{'l' * rng.choice((80, 99, 100, 101, 150, 254, 1000))}{number}",
        lambda: f"caf\udce9 {number}",
        lambda: f"{number} ",
    ))()  # fmt: skip
    if rng.random() < 0.03:
        stem = rng.choice(("../", "/", "a/../../")) + stem
    image = rng.choice((filled, _holed))(rng)
    caption = odd_text.text(rng, rng.randint(1, 8)).encode("utf-8", "replace")
    if rng.random() < 0.1:
        caption = rng.choice((b"", b" \n", b"\xff\xfe", b"\xef\xbb\xbfwith a mark", b"x" * 70_000))
    parts = [(f"{stem}.{rng.choice(_ENDINGS)}", image), (f"{stem}.txt", caption)]
    if rng.random() < 0.1:
        parts.append((f"{stem}.{rng.choice(('PNG', 'Gif'))}", image + b"2"))
    if rng.random() < 0.1:
        parts.pop(rng.randrange(len(parts)))
    if rng.random() < 0.2:
        rng.shuffle(parts)
    return parts


def _holed(rng: Random) -> bytes:
    pieces = (
        bytes(rng.choice((0, 512, 4096, 5000))) + rng.randbytes(rng.randint(1, 700))
        for _ in range(20)
    )
    return b"".join(pieces)


def _add_other(rng: Random, tar: Tar) -> None:
    """Adds a member that is not a file, not a part, or describes all that follow."""
    kind = rng.randrange(3)
    if kind == 0:
        kinds = (
            tarfile.DIRTYPE,
            tarfile.LNKTYPE,
            tarfile.SYMTYPE,
            tarfile.FIFOTYPE,
            tarfile.CHRTYPE,
            b"V",
            b"D",
        )
        other = rng.choice(kinds)
        # A link that looks like an image is a sample, possibly between the members of another.
        ending = "bin" if other in (tarfile.LNKTYPE, tarfile.SYMTYPE) else "jpg"
        tar.other(f"other{rng.getrandbits(32)}.{ending}", other, rng)
    elif kind == 1:
        tar.global_header({"comment": odd_text.text(rng, 3), "SCHILY.dev": "1"})
    else:
        name = rng.choice(_OTHERS).format(rng.getrandbits(32)).rstrip("/")
        tar.file(name, rng.randbytes(700), "gnu", rng)


def _packed(rng: Random, tar: Tar) -> tuple[bytes, str]:
    """The bytes of a shard: plain, or in gzip of one or several members; sometimes with a tail."""
    data = bytes(tar.data)
    tail = rng.choice((b"", b"", b"", b"\r\n", rng.randbytes(100), bytes(1000)))
    if not tar.members:
        tail = b""  # zeros and then something else are no tar
    if rng.random() < 0.65:
        return data + tail, "tar"
    at = rng.randrange(len(data) + 1)
    pieces = rng.choice(((data,), (data[:at], data[at:])))
    return b"".join(gzipped(rng, piece) for piece in pieces) + tail, "tar.gz"


def _check_valid(readout: Readout, data: bytes, tar: Tar, layout: str, packing: str) -> None:
    require(
        readout.last.fault in (None, ShardFault.EMPTY),
        "a valid tar is a bad shard",
        readout.last.detail,
    )
    expected = _independent(data, tar, packing)
    rows = readout.by_key()
    # A caption without an image ends a chunk that contains another pair: distant members then
    # belong to another sample.
    is_indexed = packing == "tar" and all(parts.images for parts in expected.values())
    for key, parts in expected.items():
        got = rows.pop(key, [])
        require(got or not (parts.images or parts.image_linked), "a sample is lost", key)
        if layout == "contiguous" or (layout == "images first" and is_indexed):
            require(len(got) <= 1, "a sample is there twice", key)
        for row in got:
            _check_sample(row, parts, met=layout == "contiguous")
    require(not rows, "a sample that is not in the tar", list(rows))
    if layout == "contiguous":
        order = [row["key"] for row in readout.rows]
        due = [key for key in expected if key in set(order)]
        require(order == due, "samples out of order", order, due)


def _check_sample(row: Row, parts: Parts, *, met: bool) -> None:
    """Checks that the row has exactly the members' content, or a matching reason."""
    faults = _faults(parts)
    if row["reason"] is None:
        # If several images are far apart, the first may have been yielded with the caption before
        # the next was read.
        some = [
            image
            for image in parts.images
            if met or not _faults(replace(parts, linked=False, images=[image]))
        ]
        require(not faults if met else some, "a faulty sample is good", row, faults)
        require(row["image"] in some, "an image has other bytes", row["key"])
        require(
            row["text"].encode() == parts.captions[0].removeprefix(b"\xef\xbb\xbf"),
            "another caption",
            row["key"],
        )
    elif met and not parts.odd:
        require(
            row["reason"] in faults,
            "a sample fails with another reason",
            row["reason"],
            faults,
            row["key"],
        )
    elif not parts.odd:
        apart = {Reason.NON_CONTIGUOUS, Reason.MISSING_IMAGE, Reason.MISSING_CAPTION}
        apart |= _faults(replace(parts, linked=False))
        for image in parts.images:
            apart |= _faults(replace(parts, linked=False, images=[image]))
        require(
            row["reason"] in faults | apart,
            "a sample fails with another reason",
            row["reason"],
            row["key"],
        )


def _faults(parts: Parts) -> set[str]:
    """Reasons that apply to the members of one sample."""
    faults: set[str] = set()
    if parts.unsafe:
        faults.add(Reason.UNSAFE_NAME)
    if parts.linked:
        return faults | {Reason.LINKED_MEMBER}
    if not parts.images:
        faults.add(Reason.MISSING_IMAGE)
    elif len(parts.images) > 1:
        faults.add(Reason.SEVERAL_IMAGES)
    elif not parts.images[0]:
        faults.add(Reason.EMPTY_IMAGE)
    if not parts.captions:
        return faults | {Reason.MISSING_CAPTION}
    caption = parts.captions[0]
    if len(caption) > Pool(uri=("x",)).max_caption_bytes:
        return faults | {Reason.CAPTION_TOO_LONG}
    try:
        text = caption.decode("utf-8-sig")
    except UnicodeDecodeError:
        return faults | {Reason.CAPTION_NOT_UTF8}
    return faults if _shown(text) else faults | {Reason.EMPTY_CAPTION}


def _shown(text: str) -> bool:
    """False for text of only white space or invisible characters."""
    return _UNSEEN.fullmatch(text) is None


def _independent(data: bytes, tar: Tar, packing: str) -> dict[str, Parts]:
    """The samples that `tarfile` finds, by key, in the order of their first members."""
    sparse = {member.name for member in tar.members if member.flavour in SPARSE}
    by_hand = {member.name: member.data for member in tar.members if member.flavour == EMPTY_SIZE}
    found: dict[str, Parts] = {}
    plain = unpacked(data) if packing == "tar.gz" else data
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:", ignore_zeros=True) as archive:
        for info in archive:
            *folders, base = info.name.split("/")
            stem, dot, ending = base.rpartition(".")
            ending = ending.lower()
            is_image = ending in _ENDINGS
            is_link = info.issym() or info.islnk()
            if (
                not (info.isreg() or is_link)
                or not dot
                or base[0] == "."
                or folders[:1] == ["__MACOSX"]
            ):
                continue
            if not (is_image or (ending == "txt" and stem)):
                continue
            key = _said(info.name[: -len(ending) - 1]).removeprefix("./")
            parts = found.setdefault(key, Parts())
            if is_link:
                parts.linked = True
                parts.image_linked |= is_image
                continue
            content = archive.extractfile(info)
            assert content is not None
            data = by_hand.get(info.name) or content.read()
            (parts.images if is_image else parts.captions).append(data)
            parts.unsafe |= ".." in folders or info.name.startswith("/")
            parts.odd |= info.name in sparse
    return found


def _said(name: str) -> str:
    """A name that is not UTF-8, as Latin-1."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


TARGET = Target("tar", 5, make)
