"""Tars written to take memory or time: dotted names, many headers, useless maps.

Neighbours are complete.
"""

from __future__ import annotations

import gzip
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from dfn_ray.config import Pool
from tests.fuzz.case import Case, require
from tests.fuzz.shards import read_file
from tests.fuzz.tar_writer import Tar, filled, padded, pax_header

_MAX_NAME_CHARS = 4096


def hostile_tar(rng: Random, pool: Pool, seed: int) -> Case:
    """A tar with hostile members between two plain samples."""
    tar = Tar()
    images = [filled(rng) + b"!" for _ in range(2)]
    tar.file("first.jpg", images[0], "ustar", rng)
    tar.file("first.txt", b"caption", "ustar", rng)
    pool = replace(pool, chunk_bytes=2**20)
    add = rng.choice(
        (_add_long_names, _add_piled_headers, _add_maps, _add_far_members, _add_dotted)
    )
    add(rng, tar)
    tar.file("last.jpg", images[1], "ustar", rng)
    tar.file("last.txt", b"caption", "ustar", rng)
    tar.end()
    zipped = rng.random() < 0.5
    data = gzip.compress(bytes(tar.data), 1, mtime=0) if zipped else bytes(tar.data)
    name = "0.tar.gz" if zipped else "0.tar"

    def check(folder: Path) -> Counter[str]:
        readout = read_file(data, folder, name, pool, Random(seed))
        require(readout.last.fault is None, "hostile members cost the shard", readout.last.detail)
        rows = readout.by_key()
        for key, image in zip(("first", "last"), images, strict=True):
            require(
                [row["image"] for row in rows[key]] == [image],
                "a neighbour of a hostile member differs",
                key,
            )
        require(all(len(key) <= _MAX_NAME_CHARS for key in rows), "a name without an end is a key")
        return readout.outcomes

    note = f"hostile {name}, {add.__name__}, chunks of {pool.chunk_rows}"
    return Case(valid=False, note=note, files={name: data}, check=check)


def _add(tar: Tar, records: list[tuple[bytes, bytes]], data: bytes = b"image") -> None:
    info = tarfile.TarInfo("x.jpg")
    info.size = len(data)
    tar.data += pax_header("pax", records) + info.tobuf(tarfile.USTAR_FORMAT) + padded(data)


def _add_long_names(rng: Random, tar: Tar) -> None:
    for _ in range(rng.randint(1, 40)):
        unit = rng.choice((".", ".b", "d/", "é.", "long", "../", "\\."))
        stem = "a" * rng.randint(0, 1) + unit * rng.choice((100, 2000, 4090 // len(unit), 60_000))
        ending = rng.choice(("jpg", "txt", "json", "npz", "svg", "j" * 5000))
        _add(tar, [(b"path", f"{stem}{rng.randint(0, 3)}.{ending}".encode())])


def _add_piled_headers(rng: Random, tar: Tar) -> None:
    for number in range(rng.randint(1, 6)):
        records = [
            (f"{rng.choice(('comment', 'GNU.sparse.x'))}{number}.{n}".encode(), b"x" * 1000)
            for n in range(rng.choice((1, 300, 900)))
        ]
        tar.data += pax_header("pax", records)
    _add(tar, [(b"path", b"piled.jpg")])


def _add_maps(rng: Random, tar: Tar) -> None:
    for number in range(rng.randint(1, 4)):
        stretches = rng.choice((10, 5000))
        numbers = b",".join(b"%d,1" % (2 * at) for at in range(stretches))
        name = rng.choice(("m.{}.jpg", "m{}.y.txt", "m{}.jpg")).format(number)
        size = rng.choice((2 * stretches, 2**40))
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", numbers)]
        _add(tar, [*records, (b"path", name.encode())], b"s" * stretches)


def _add_far_members(rng: Random, tar: Tar) -> None:
    """Samples with distant members, together larger than a chunk; kilobytes in gzip."""
    sizes = {"jpg": rng.choice((10, 200_000)), "json": rng.choice((10, 900_000)), "txt": 10}
    endings = rng.sample(sorted(sizes), rng.randint(2, 3))
    for ending in endings:
        for number in range(rng.choice((3, 16))):
            data = bytes(sizes[ending])
            if ending != "jpg":
                data = b'{"a": "' + b"x" * sizes[ending] + b'"}'
            tar.file(f"far{number:02d}.{ending}", data, "ustar", rng)


def _add_dotted(rng: Random, tar: Tar) -> None:
    """Images that may be extras of others, for which the reader looks ahead."""
    stems = [
        "a",
        "b",
        "a.b",
        "a.b.c",
        "c",
        "c.seg",
        "d.1",
        "d.2",
        "d",
        "__x",
        "readme",
        "a.seg",
        "b.x",
    ]
    for _ in range(rng.randint(1, 14)):
        stem = rng.choice(stems)
        for ending in rng.sample(["jpg", "png", "txt", "heic", "npz", "seg.jpg", "0.txt"], 2):
            tar.file(f"{stem}.{ending}", filled(rng) + b"!", "ustar", rng)
