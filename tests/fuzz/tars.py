"""Target: tars. Members of valid ones are those that `tarfile` reads; damaged ones keep the samples around the damage."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from dfn_ray.config import Pool
from dfn_ray.pool.members import IMAGE_EXTENSIONS
from dfn_ray.schema import Reason, ShardFault
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import Mutation, mutate
from tests.fuzz.shards import Readout, Row, read_file
from tests.fuzz.tar_writer import BLOCK, EMPTY_SIZE, FLAVOURS, SPARSE, Member, Tar, signed

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
    "__MACOSX/{}.jpg", "._{}.jpg", "{}/", "{}.npz", "{}.mp3", "{}", "{}.jpg.aes", ".hidden/._{}.txt", "{}.syn.json",
)  # fmt: skip
"""Names of members that are no part of a sample."""


@dataclass(kw_only=True)
class Parts:
    """The members of one key, as an independent reader finds them."""

    images: list[bytes] = field(default_factory=list)
    captions: list[bytes] = field(default_factory=list)
    unsafe: bool = False
    odd: bool = False
    """Sparse: it may fail, by reason."""


def make(rng: Random) -> Case:
    """A valid tar or a damaged one."""
    pool = Pool(uri=("x",), chunk_rows=rng.choice((1, 2, 3, 8, 256)))
    seed = rng.getrandbits(64)
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
    return _damaged(rng, pool, seed)


def _valid(rng: Random) -> tuple[Tar, str, set[str]]:
    """A tar of whole samples, its layout, and the flavours of its members."""
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
    image = rng.choice((_filled, _holed))(rng)
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


def _filled(rng: Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 511, 512, 513, 1024, rng.randint(1, 9000))))


def _holed(rng: Random) -> bytes:
    pieces = (
        bytes(rng.choice((0, 512, 4096, 5000))) + rng.randbytes(rng.randint(1, 700))
        for _ in range(20)
    )
    return b"".join(pieces)


def _add_other(rng: Random, tar: Tar) -> None:
    """A member that is no file, no part, or describes all that follow."""
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
        tar.other(f"other{rng.getrandbits(32)}.jpg", rng.choice(kinds), rng)
    elif kind == 1:
        tar.global_header({"comment": odd_text.text(rng, 3), "SCHILY.dev": "1"})
    else:
        name = rng.choice(_OTHERS).format(rng.getrandbits(32)).rstrip("/")
        tar.file(name, rng.randbytes(700), "gnu", rng)


def _packed(rng: Random, tar: Tar) -> tuple[bytes, str]:
    """The bytes of a shard: plain, or in gzip of one or several members; sometimes with bytes after the end."""
    data = bytes(tar.data)
    tail = rng.choice((b"", b"", b"", b"\r\n", rng.randbytes(100), bytes(1000)))
    if rng.random() < 0.65:
        return data + tail, "tar"
    at = rng.randrange(len(data) + 1)
    pieces = rng.choice(((data,), (data[:at], data[at:])))
    return b"".join(_gzipped(rng, piece) for piece in pieces) + tail, "tar.gz"


def _gzipped(rng: Random, data: bytes) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(
        rng.choice(("", "x.tar")), "wb", rng.choice((1, 6, 9)), file, mtime=0
    ) as out:
        out.write(data)
    return file.getvalue()


def _check_valid(readout: Readout, data: bytes, tar: Tar, layout: str, packing: str) -> None:
    require(
        readout.last.fault in (None, ShardFault.EMPTY),
        "a valid tar is a bad shard",
        readout.last.detail,
    )
    expected = _independent(data, tar, packing)
    rows = readout.by_key()
    for key, parts in expected.items():
        got = rows.pop(key, [])
        require(got or not parts.images, "a sample is lost", key)
        if layout == "contiguous" or (layout == "images first" and packing == "tar"):
            require(len(got) <= 1, "a sample is there twice", key)
        for row in got:
            _check_sample(row, parts, met=layout == "contiguous")
    require(not rows, "a sample that is not in the tar", list(rows))
    if layout == "contiguous":
        order = [row["key"] for row in readout.rows]
        due = [key for key in expected if key in set(order)]
        require(order == due, "samples out of order", order, due)


def _check_sample(row: Row, parts: Parts, *, met: bool) -> None:
    """The row holds just what the members hold, or says a reason that they give."""
    faults = _faults(parts)
    if row["reason"] is None:
        require(not faults, "a faulty sample is good", row, faults)
        require(row["image"] == parts.images[0], "an image has other bytes", row["key"])
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
        require(
            row["reason"] in faults | apart,
            "a sample fails with another reason",
            row["reason"],
            row["key"],
        )


def _faults(parts: Parts) -> set[str]:
    """Reasons that hold for the members of one sample."""
    faults: set[str] = set()
    if parts.unsafe:
        faults.add(Reason.UNSAFE_NAME)
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
    """False for what is only white space, or characters that nobody sees."""
    return any(character.isprintable() and not character.isspace() for character in text)


def _independent(data: bytes, tar: Tar, packing: str) -> dict[str, Parts]:
    """The samples that `tarfile` finds, by key, in the order of their first members."""
    sparse = {member.name for member in tar.members if member.flavour in SPARSE}
    by_hand = {member.name: member.data for member in tar.members if member.flavour == EMPTY_SIZE}
    found: dict[str, Parts] = {}
    plain = _unpacked(data) if packing == "tar.gz" else data
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:", ignore_zeros=True) as archive:
        for info in archive:
            *folders, base = info.name.split("/")
            stem, dot, ending = base.rpartition(".")
            ending = ending.lower()
            is_image = ending in _ENDINGS
            if not info.isreg() or not dot or base[0] == "." or folders[:1] == ["__MACOSX"]:
                continue
            if not (is_image or (ending == "txt" and stem)):
                continue
            key = _said(info.name[: -len(ending) - 1]).removeprefix("./")
            parts = found.setdefault(key, Parts())
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


def _unpacked(data: bytes) -> bytes:
    """All gzip members at the front of `data`."""
    plain = b""
    while data[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(31)
        plain += stream.decompress(data)
        data = stream.unused_data
    return plain


def _damaged(rng: Random, pool: Pool, seed: int) -> Case:
    """A tar of plain samples with one damage."""
    tar = Tar()
    flavour = rng.choice(("ustar", "gnu", "pax", "pax-records", EMPTY_SIZE))
    for number in range(rng.randint(2, 8)):
        stem = rng.choice((f"{number:06d}", f"{'l' * 120}{number}", f"é{number}"))
        tar.file(f"{stem}.jpg", _filled(rng) + b"!", flavour, rng)
        tar.file(f"{stem}.txt", f"caption {number}".encode(), flavour, rng)
    tar.end()
    plain = bytes(tar.data)
    zipped = rng.random() < 0.3
    if zipped:
        damage = mutate(rng, _gzipped(rng, plain))
    elif rng.random() < 0.3:
        damage = _header_field(rng, plain, rng.choice(tar.members))
    else:
        damage = mutate(rng, plain)
    name = "0.tar.gz" if zipped else "0.tar"

    def check(folder: Path) -> Counter[str]:
        readout = read_file(damage.data, folder, name, pool, Random(seed))
        if zipped:
            _check_zipped(readout, tar, damage)
        else:
            _check_neighbours(readout, tar, damage)
        return readout.outcomes

    note = f"damaged {name}, {flavour}: {damage.note}, chunks of {pool.chunk_rows}"
    return Case(valid=False, note=note, files={name: damage.data}, check=check)


def _header_field(rng: Random, data: bytes, member: Member) -> Mutation:
    """A field of a header at an extreme, under a checksum that fits."""
    start = rng.choice((member.start, member.data_start - BLOCK))
    header = bytearray(data[start : start + BLOCK])
    place, size = rng.choice(((0, 100), (124, 12), (124, 12), (124, 12), (156, 1), (345, 155)))
    values = (
        b"\xff" * size, b"\0" * size, b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"77777777777\0", b"-1".ljust(size),
        b"99999999999\0", b"\x80" + b"\xff" * 11, b" " * size, rng.randbytes(size), rng.choice(b"SLKxgXZ7\0").to_bytes(),
    )  # fmt: skip
    header[place : place + size] = rng.choice(values)[:size].ljust(size, b"\0")
    damaged = data[:start] + bytes(signed(header)) + data[start + BLOCK :]
    return Mutation(
        data=damaged, note=f"header at {start}, field {place}", start=start, stop=start + BLOCK
    )


def _check_neighbours(readout: Readout, tar: Tar, damage: Mutation) -> None:
    """Samples before the damage are whole, and those behind it where all headers still stand."""
    in_header = any(
        member.start < damage.stop and damage.start < member.data_start for member in tar.members
    )
    chained = damage.in_place and not in_header
    rows = readout.by_key()
    for image, caption in _pairs(tar):
        before, behind = caption.stop <= damage.start, image.start >= damage.stop and chained
        if before or behind:
            _check_intact(rows, image, caption)
        elif chained:
            require(_key(image) in rows, "a sample with damaged bytes is lost", image.name)
    if damage.cut and damage.start < tar.members[-1].stop:
        require(
            readout.last.fault is not None, "a tar that is cut off is a good shard", damage.note
        )


def _check_zipped(readout: Readout, tar: Tar, damage: Mutation) -> None:
    """Samples before the damage are whole; a stream that does not fit its checksum is a fault."""
    stream = zlib.decompressobj(31)
    with contextlib.suppress(zlib.error):
        whole = stream.decompress(damage.data[: damage.start])
        rows = readout.by_key()
        for image, caption in _pairs(tar):
            if caption.stop <= len(whole):
                _check_intact(rows, image, caption)
    try:
        whole = _unpacked(damage.data)
    except zlib.error:
        whole = b""
    if not whole.startswith(bytes(tar.data)):
        require(
            readout.last.fault is not None or any(row["reason"] for row in readout.rows) or len(whole) > len(tar.data),
            "a broken gzip stream is a good shard", damage.note,
        )  # fmt: skip


def _check_intact(rows: dict[str, list[Row]], image: Member, caption: Member) -> None:
    got = [row for row in rows.get(_key(image), []) if row["reason"] is None]
    require(got, "an undamaged neighbour is lost", image.name, rows.get(_key(image)))
    require(got[0]["image"] == image.data, "an undamaged neighbour has other bytes", image.name)
    require(
        got[0]["text"].encode() == caption.data,
        "an undamaged neighbour has another caption",
        image.name,
    )


def _pairs(tar: Tar) -> list[tuple[Member, Member]]:
    return list(zip(tar.members[::2], tar.members[1::2], strict=True))


def _key(image: Member) -> str:
    return image.name.rpartition(".")[0]


TARGET = Target("tar", 5, make)
assert IMAGE_EXTENSIONS & set(_ENDINGS)
