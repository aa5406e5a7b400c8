"""Tars and images for tests: valid ones, and ones damaged on purpose.

Headers come from the standard library's `tarfile`, so that readers are tested against an
independent writer.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from dfn_ray.storage import Store

_END = bytes(2 * tarfile.BLOCKSIZE)


class TarBuilder:
    """Builds a tar member by member, in memory.

        tar = TarBuilder().sample("000", image=jpeg_bytes(), caption="a cat").member("001.jpg", b"")
        data = tar.getvalue()

    `tar_format` is one of tarfile's: PAX_FORMAT, GNU_FORMAT, USTAR_FORMAT.
    """

    def __init__(self, tar_format: Literal[0, 1, 2] = tarfile.USTAR_FORMAT) -> None:
        self._format: Literal[0, 1, 2] = tar_format
        self._data = bytearray()

    def member(
        self,
        name: str,
        data: bytes | str = b"",
        *,
        kind: bytes = tarfile.REGTYPE,
        pax_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Adds a file, or with `kind` another type of member, under any name."""
        data = data.encode() if isinstance(data, str) else data
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(data)
        info.pax_headers = dict(pax_headers or {})
        self._data += info.tobuf(self._format, "utf-8", "surrogateescape")
        return self.raw(data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def sample(
        self,
        key: str,
        *,
        image: bytes | None = None,
        caption: bytes | str | None = None,
        metadata: Mapping[str, Any] | bytes | None = None,
        image_extension: str = "jpg",
    ) -> Self:
        """Adds the members of one sample, in the order of WebDataset's writer: image, json, txt."""
        if image is not None:
            self.member(f"{key}.{image_extension}", image)
        if metadata is not None:
            data = metadata if isinstance(metadata, bytes) else json.dumps(metadata, indent=4)
            self.member(f"{key}.json", data)
        if caption is not None:
            self.member(f"{key}.txt", caption)
        return self

    def raw(self, data: bytes) -> Self:
        """Adds bytes unchanged."""
        self._data += data
        return self

    def __len__(self) -> int:
        return len(self._data)

    def getvalue(self, *, end: bool = True) -> bytes:
        """The tar so far, with or without its end-of-archive mark."""
        return bytes(self._data) + (_END if end else b"")


def write_tar_shard(uri: str, samples: Iterable[Mapping[str, Any]]) -> int:
    """Writes a tar of `samples` (keywords of `TarBuilder.sample`) to a URI; returns its size."""
    tar = TarBuilder()
    for sample in samples:
        tar.sample(**sample)
    data = tar.getvalue()
    folder, _, name = uri.rpartition("/")
    Store(folder).write(name, data)
    return len(data)


def jpeg_bytes(width: int = 8, height: int = 8, *, shade: int = 128) -> bytes:
    """A grey JPEG."""
    file = io.BytesIO()
    Image.new("L", (width, height), shade).save(file, "JPEG")
    return file.getvalue()


def photo(number: int, size: tuple[int, int] = (40, 36)) -> bytes:
    """A small JPEG of smooth colours, distinct for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def uid_of(number: int) -> str:
    """The uid of sample `number` of `write_pool`."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def write_pool(folder: Path, *, shards: int, samples: int) -> Path:
    """Writes a pool of `shards` x `samples` valid samples; returns the folder.

    Each has a JPEG, a caption and a uid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        tar = TarBuilder()
        for number in range(shard * samples, (shard + 1) * samples):
            tar.sample(
                f"{number:06d}",
                image=photo(number),
                caption=f"picture number {number} of {'very ' * (number % 5)}many",
                metadata={"uid": uid_of(number), "source": "test"},
            )
        (folder / f"{shard:05d}.tar").write_bytes(tar.getvalue())
    return folder
