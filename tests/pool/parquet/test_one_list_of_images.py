"""Tars and class folders accept the same image extensions as decoding."""

from __future__ import annotations

import pytest

from dfn_ray.config import Pool
from dfn_ray.images.formats import IMAGE_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dfn_ray.pool import iter_chunks, list_shards
from dfn_ray.testing.sample_pools import TarBuilder

ENDINGS = sorted(IMAGE_EXTENSIONS) + [ending.upper() for ending in sorted(IMAGE_EXTENSIONS)]


def reasons(pool: Pool) -> list[str | None]:
    return [
        reason
        for shard in list_shards(pool)
        for _, table in iter_chunks(shard, pool)
        for reason in table["reason"].to_pylist()
    ]


def test_every_ending_of_the_list_is_an_image_in_a_tar(tmp_path):
    tar = TarBuilder()
    for number, ending in enumerate(ENDINGS):
        tar.sample(f"{number:03d}", image=b"x", caption="c", image_extension=ending)
    (tmp_path / "0.tar").write_bytes(tar.getvalue())
    assert reasons(Pool(uri=(str(tmp_path),))) == [None] * len(ENDINGS)


@pytest.mark.parametrize("endings", [ENDINGS, sorted(UNSUPPORTED_EXTENSIONS)])
def test_every_ending_of_the_list_is_an_image_in_a_class_folder(tmp_path, endings):
    (tmp_path / "cat").mkdir()
    for number, ending in enumerate(endings):
        (tmp_path / "cat" / f"{number:03d}.{ending}").write_bytes(b"x")
    (tmp_path / "cat" / "notes.txt").write_bytes(b"no image")
    pool = Pool(uri=(str(tmp_path),), format="folder", caption="label")
    assert reasons(pool) == [None] * len(endings)
