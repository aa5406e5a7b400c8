"""Damaged tars: the samples around the damage are complete, and the damage is reported."""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from pathlib import Path
from random import Random

from dfn_ray.config import Pool
from tests.fuzz.case import Case, require
from tests.fuzz.mutate import Mutation, mutate
from tests.fuzz.shards import Readout, Row, read_file
from tests.fuzz.tar_writer import BLOCK, EMPTY_SIZE, Member, Tar, filled, gzipped, signed, unpacked


def damaged_tar(rng: Random, pool: Pool, seed: int) -> Case:
    """A tar of plain samples with one damage."""
    tar = Tar()
    flavour = rng.choice(("ustar", "gnu", "pax", "pax-records", EMPTY_SIZE))
    for number in range(rng.randint(2, 8)):
        stem = rng.choice((f"{number:06d}", f"{'l' * 120}{number}", f"é{number}"))
        tar.file(f"{stem}.jpg", filled(rng) + b"!", flavour, rng)
        tar.file(f"{stem}.txt", f"caption {number}".encode(), flavour, rng)
    tar.end()
    plain = bytes(tar.data)
    if rng.random() < 0.2:
        return _holed_tar(rng, tar, pool, seed)
    zipped = rng.random() < 0.3
    if zipped:
        damage = mutate(rng, gzipped(rng, plain))
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


def _holed_tar(rng: Random, tar: Tar, pool: Pool, seed: int) -> Case:
    """A tar with whole blocks of zeros, or with other bytes and another tar after its end.

    Nothing is lost silently.
    """
    data, name = bytes(tar.data), rng.choice(("0.tar", "0.tar.gz"))
    if rng.random() < 0.7:
        start = BLOCK * rng.randrange(tar.members[-1].stop // BLOCK)
        size = min(BLOCK * rng.choice((1, 2, 3, 8, 40)), len(data) - start)
        data = data[:start] + bytes(size) + data[start + size :]
        note = f"{size} zeros at {start}"
        # One that runs into the end-of-archive mark is no other than padding.
        to_end = start + size >= tar.members[-1].stop
    else:
        other = Tar()
        other.file("other.jpg", b"image", "ustar", rng)
        other.file("other.txt", b"caption", "ustar", rng)
        other.end()
        junk = rng.randbytes(rng.choice((1, 100, BLOCK, 3 * BLOCK, 5000)))
        to_end = False
        start, note = len(data), f"{len(junk)} bytes and a tar at {len(data)}"
        data += junk + bytes(other.data)
    packed = gzipped(rng, data) if name.endswith("gz") else data

    def check(folder: Path) -> Counter[str]:
        readout = read_file(packed, folder, name, pool, Random(seed))
        rows = readout.by_key()
        lost = start == len(tar.data)
        for image, caption in _pairs(tar):
            if caption.stop <= start:
                _check_intact(rows, image, caption)
            lost = lost or _key(image) not in rows
        said = readout.last.fault is not None or readout.last.notes
        require(said or not lost or to_end, "samples are lost without a word", note)
        return readout.outcomes

    return Case(
        valid=False,
        note=f"{name} with {note}, chunks of {pool.chunk_rows}",
        files={name: packed},
        check=check,
    )


def _header_field(rng: Random, data: bytes, member: Member) -> Mutation:
    """A header field at an extreme, with a matching checksum."""
    start = rng.choice((member.start, member.data_start - BLOCK))
    header = bytearray(data[start : start + BLOCK])
    place, size = rng.choice(((0, 100), (124, 12), (124, 12), (124, 12), (156, 1), (345, 155)))
    values = (
        b"\xff" * size,
        b"\0" * size,
        b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,
        b"77777777777\0",
        b"-1".ljust(size),
        b"99999999999\0",
        b"\x80" + b"\xff" * 11,
        b" " * size,
        rng.randbytes(size),
        rng.choice(b"SLKxgXZ7\0").to_bytes(),
    )
    header[place : place + size] = rng.choice(values)[:size].ljust(size, b"\0")
    damaged = data[:start] + bytes(signed(header)) + data[start + BLOCK :]
    return Mutation(
        data=damaged, note=f"header at {start}, field {place}", start=start, stop=start + BLOCK
    )


def _check_neighbours(readout: Readout, tar: Tar, damage: Mutation) -> None:
    """Checks that samples before the damage are complete.

    Those after it too, if all headers are intact.
    """
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
    """Checks that samples before the damage are complete, and that a bad checksum is a fault."""
    stream = zlib.decompressobj(31)
    with contextlib.suppress(zlib.error):
        whole = stream.decompress(damage.data[: damage.start])
        rows = readout.by_key()
        for image, caption in _pairs(tar):
            if caption.stop <= len(whole):
                _check_intact(rows, image, caption)
    try:
        whole = unpacked(damage.data)
    except zlib.error:
        whole = b""
    if not whole.startswith(bytes(tar.data)):
        require(
            readout.last.fault is not None
            or any(row["reason"] for row in readout.rows)
            or len(whole) > len(tar.data),
            "a broken gzip stream is a good shard",
            damage.note,
        )


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
