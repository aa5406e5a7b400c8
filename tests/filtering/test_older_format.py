"""Runs of format 1, from before readers had a version: read by all reading verbs, never resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.cli import run as dfn_ray
from dfn_ray.config import Select, recipe_values
from dfn_ray.filtering.filter_pool import materialize, select
from dfn_ray.filtering.subset.export_subset import export_webdataset
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.report.compare import compare_runs
from dfn_ray.run import fingerprint_digest
from tests.filtering.test_filter_pool import kept
from tests.filtering.test_object_storage import toml_of

pytestmark = pytest.mark.ray

SINCE = {
    "pool": ("verify_page_checksums",),
    "execution": ("accept_changed_shards", "accept_versions", "give_up_unreachable"),
}
"""Settings added in format 2."""


def as_format_1(run: Path) -> None:
    """Converts a finished run to format 1, in every field (commit dedad10)."""
    description = json.loads((run / "run.json").read_text())
    for section, names in SINCE.items():
        for name in names:
            del description["recipe"][section][name]
    fingerprint = description["fingerprint"]
    del fingerprint["versions"], fingerprint["pool"]["verify_page_checksums"]
    for network in fingerprint["networks"].values():
        del network["versions"], network["tokenizer"]["versions"]
    digest = fingerprint_digest(fingerprint)
    listing = pq.read_table(run / "pool.parquet", columns=["uri", "name", "size_bytes", "fault"])
    pq.write_table(listing, run / "pool.parquet")
    description |= {
        "format": 1,
        "fingerprint_digest": digest,
        "pool": pool_of_format_1(listing),
        "versions": {"dfn_ray": "0.0.9"},
    }
    del description["id"], description["sha256"]
    (run / "run.json").write_text(json.dumps(description))
    shutil.rmtree(run / "attempts")
    (run / "attempt.json").write_text(json.dumps({"attempt": "a", "host": "h", "time": "t"}))
    for path in [*run.glob("parts-*.txt"), *run.glob("files-*.txt")]:
        path.unlink()
    for path in list((run / "scores").iterdir()):
        table = pq.read_table(path)
        metadata = dict(table.schema.metadata)
        chunks = json.loads(metadata[b"dfn_ray.chunks"])
        for chunk in chunks:
            chunk.pop("notes", None)
        part = json.loads(metadata[b"dfn_ray.part"]) | {"fingerprint": digest}
        del part["environments"]
        # The files beside a part had its name, which was a digest of its chunks.
        names = json.dumps([[chunk["shard"], chunk.get("first_row", 0)] for chunk in chunks])
        name = f"part-{hashlib.blake2b(names.encode(), digest_size=16).hexdigest()}"
        for stem, ending in ((part.pop("subset"), ""), (part.pop("borderline"), "-settled")):
            for old in (run / "subset").glob(f"{stem}{ending}.parquet"):
                old.rename(run / "subset" / f"{name}{ending}.parquet")
        metadata[b"dfn_ray.chunks"] = json.dumps(chunks).encode()
        metadata[b"dfn_ray.part"] = json.dumps(part).encode()
        path.unlink()
        whole = table.replace_schema_metadata(metadata)
        pq.write_table(whole, run / "scores" / f"{name}.parquet")
    selection = json.loads((run / "selection.json").read_text())
    for name in ("notes", "parts", "files", "sha256"):
        del selection[name]
    (run / "selection.json").write_text(json.dumps(selection | {"fingerprint": digest}))


def pool_of_format_1(listing: pa.Table) -> Mapping[str, Any]:
    """`pool` of run.json in format 1: the digest covered sizes."""
    digest = hashlib.sha256()
    for row in listing.to_pylist():
        digest.update(f"{row['uri']}\0{row['size_bytes']}\0{row['fault']}\0".encode())
    total = sum(listing["size_bytes"].to_pylist())
    return {"shards": listing.num_rows, "bytes": total, "digest": digest.hexdigest()}


@pytest.fixture
def older(finished, tmp_path):
    """The recipe of a finished run of format 1."""
    job = replace(finished, run_uri=str(tmp_path / "older"))
    shutil.copytree(finished.run_uri, job.run_uri)
    as_format_1(Path(job.run_uri))
    return job


def files_in(run_uri: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(run_uri).rglob("*") if path.is_file()}


def test_a_run_of_format_1_is_verified(older):
    assert verify_run(older.run_uri, full=True)["compared"] == 90


def test_a_run_of_format_1_is_selected_from(older):
    assert select(older)["k"] == 90
    before = files_in(older.run_uri)
    assert select(replace(older, select=Select(keep_fraction=0.5)))["k"] == 150
    after = files_in(older.run_uri)
    assert before.items() <= after.items()
    new = {path.relative_to(older.run_uri).parts[0] for path in after.keys() - before.keys()}
    assert new == {"attempts", "selections"}


def test_a_run_of_format_1_is_exported(older, tmp_path):
    assert dfn_ray(["export", older.run_uri, str(tmp_path / "list.npy")]) == 0
    assert len(np.load(tmp_path / "list.npy")) == 90
    assert export_webdataset(older.run_uri, str(tmp_path / "tars"), shard_samples=50) == 2


def test_a_run_of_format_1_is_compared_with_one_of_today(older, finished):
    found = compare_runs([older.run_uri, finished.run_uri])
    assert found.samples == 300
    assert found.overlap.tolist() == [[1, 1], [1, 1]]
    assert dfn_ray(["compare", older.run_uri, finished.run_uri]) == 0


def test_a_subset_made_elsewhere_from_a_run_of_format_1_is_verified(older, tmp_path):
    out = str(tmp_path / "out")
    assert materialize(older, out_uri=out)["k"] == 90
    assert kept(out).keys() == kept(older.run_uri).keys()
    assert verify_run(out, full=True)["compared"] == 90


@pytest.mark.parametrize("verb", ["filter", "score", "materialize"])
@pytest.mark.parametrize("finished_once", [True, False], ids=["finished", "unfinished"])
def test_a_run_of_format_1_is_never_resumed_and_one_sentence_says_so(
    older, tmp_path, capsys, verb, finished_once
):
    if not finished_once:
        (Path(older.run_uri) / "selection.json").unlink()
    path = tmp_path / "recipe.toml"
    path.write_text(toml_of(recipe_values(older)))
    before = files_in(older.run_uri)
    assert dfn_ray([verb, str(path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        f"dfn-ray {verb}: {older.run_uri}: has run format 1, made by dfn_ray 0.0.9; this "
        "version can verify, select from, export and compare it, but not resume it: use another "
        "run_uri, or that version to resume"
    ]
    assert files_in(older.run_uri) == before
