"""Export targets: allowed folders and existing content, without Ray."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from dfn_ray.errors import DamagedRunError, FingerprintError, InputError
from dfn_ray.filtering.subset.export_subset import export_uids, export_webdataset
from dfn_ray.filtering.subset.uid_list_subset import materialize_listed
from dfn_ray.testing.sample_pools import TarBuilder, write_pool
from tests.run.below_ray import filter_without_ray, no_ray, recipe_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    pool = write_pool(tmp_path_factory.mktemp("pool"), shards=1, samples=12)
    filter_without_ray(recipe_of(folder, pool, 0.5))
    return folder


def export(run: Path, out: Path) -> int:
    with no_ray():
        return export_webdataset(str(run), str(out), shard_samples=2)


@pytest.mark.parametrize("gone", ["00000001.tar", "00000001_stats.json"])
def test_a_tar_without_its_stats_and_stats_without_their_tar_are_written_again(
    finished, tmp_path, gone
):
    out = tmp_path / "tars"
    assert export(finished, out) == 3
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / gone).unlink()
    assert export(finished, out) == 3
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_an_export_json_that_is_none_is_damage(finished, tmp_path, data):
    out = tmp_path / "tars"
    export(finished, out)
    (out / "export.json").write_bytes(data)
    with pytest.raises(
        DamagedRunError, match=r"export\.json: is damaged: .*; delete everything in the folder"
    ):
        export(finished, out)


@pytest.mark.parametrize(
    "name",
    ["subset_uids.npy", "uids.npy", "subset/uids.npy", "new/uids.npy", "selections/rule/uids.npy"],
)
def test_nothing_is_exported_into_a_run_whichever_it_is(finished, tmp_path, name, monkeypatch):
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    (tmp_path / "link").symlink_to(other)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    monkeypatch.chdir(other)
    for target in (f"{other}/{name}", f"{tmp_path}/link/{name}", name):
        with pytest.raises(InputError, match=r"is inside the run .*/other, and an export"):
            export_uids(str(finished), target)
        with pytest.raises(InputError, match=r"is inside the run .*/other, and an export"):
            export(finished, Path(target))
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", [".uids.npy", "_exports/uids.npy"])
def test_a_hidden_place_in_a_run_and_one_beside_it_are_free(finished, tmp_path, name):
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    assert export_uids(str(finished), f"{other}/{name}") == 6
    assert export_uids(str(finished), f"{tmp_path}/uids.npy") == 6


@pytest.mark.parametrize(
    ("member", "form", "ending"),
    [
        ("avif", "AVIF", "avif"),
        ("jfif", "JPEG", "jpg"),
        ("bmp", "BMP", "bmp"),
        ("jpg", "PNG", "png"),
    ],
)
def test_an_exported_image_has_the_ending_of_what_it_is(tmp_path, member, form, ending):
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, form)
    tar = TarBuilder().member(f"000.{member}", image.getvalue()).member("000.txt", "a picture")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/0.tar").write_bytes(tar.getvalue())
    filter_without_ray(recipe_of(tmp_path / "run", tmp_path / "pool", 1.0))
    assert export(tmp_path / "run", tmp_path / "tars") == 1
    with tarfile.open(tmp_path / "tars/00000000.tar") as exported:
        assert [Path(name).suffix for name in exported.getnames()] == [
            f".{ending}",
            ".txt",
            ".json",
        ]
        first = exported.extractfile(exported.getnames()[0])
        assert first is not None
        assert first.read() == image.getvalue()


def test_filtering_into_the_run_of_a_uid_list_is_refused(finished, tmp_path):
    pool = tmp_path / "pool"
    recipe = recipe_of(tmp_path / "listed", write_pool(pool, shards=1, samples=12), 0.5)
    export_uids(str(finished), str(tmp_path / "uids.npy"))
    with no_ray():
        materialize_listed(recipe.pool, str(tmp_path / "uids.npy"), recipe.run_uri)
    with pytest.raises(FingerprintError, match="kind: run has listed, recipe has filter"):
        filter_without_ray(recipe)
