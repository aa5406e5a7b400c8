"""Pool and run on a real S3 server give the same results as on disk."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from dfn_ray import cli
from dfn_ray.config import recipe_values
from dfn_ray.errors import StorageAccessError
from dfn_ray.filtering import chain
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.subset.export_subset import export_webdataset
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.pool import list_shards
from dfn_ray.run import open_run, part_names, scan_ledger
from dfn_ray.storage import Store
from dfn_ray.testing.s3_proxy import Fault, Faults

pytestmark = pytest.mark.ray


def upload(folder: Path, uri: str) -> None:
    for path in folder.iterdir():
        Store(uri).write(path.name, path.read_bytes())


def subset(uri: str) -> list[dict]:
    fs, root = fsspec.url_to_fs(f"{uri}/subset")
    fs.invalidate_cache()
    rows = []
    for path in fs.ls(root, detail=False):
        with fs.open(path) as file:
            rows += pq.read_table(file).to_pylist()
    for row in rows:
        row["shard"] = row["shard"].rpartition("/")[2]
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))


def scores(uri: str) -> list[dict]:
    store = Store(uri)
    rows = []
    for file in store.list("scores"):
        with store.open(f"scores/{file.name}") as opened:
            rows += pq.read_table(opened, columns=["uid", "status", "score_dfn"]).to_pylist()
    return sorted(rows, key=lambda row: row["uid"])


@pytest.mark.slow
def test_a_run_on_s3_with_every_fifth_request_faulty_equals_the_run_on_disk(
    local_ray, s3, proxy, recipe, pool, tmp_path
):
    upload(pool, "s3://pools/pool")
    there = recipe("s3://pools/pool/{00000..00005}.tar", "run_uri=s3://runs/a/run")
    here = recipe(pool)
    filter_pool(here)
    export_webdataset(here.run_uri, str(tmp_path / "tars"), shard_samples=40)

    proxy.faults = Faults(share=0.2, seed=5)
    filter_pool(there)
    assert verify_run(there.run_uri, full=True)["kept"] == 90
    assert export_webdataset(there.run_uri, "s3://runs/tars", shard_samples=40) == 3
    # pytest shows it when the test fails, and with -s.
    print(f"\n{proxy.summary()}\n{proxy.requests / 300:.2f} requests a sample")  # noqa: T201
    assert proxy.faulty > 0.1 * proxy.requests

    proxy.reset()
    on_s3, on_disk = Store(there.run_uri), Store(here.run_uri)
    assert scores(there.run_uri) == scores(here.run_uri)
    assert subset(there.run_uri) == subset(here.run_uri)
    assert on_s3.read("subset_uids.npy") == on_disk.read("subset_uids.npy")
    selections = [json.loads(store.read("selection.json")) for store in (on_s3, on_disk)]
    assert selections[0]["threshold"] == selections[1]["threshold"]
    assert selections[0]["counts"] == selections[1]["counts"]
    # Which tar a sample is in follows the names of parts, and those follow the shards' URIs.
    assert members(Store("s3://runs/tars")) == members(Store(str(tmp_path / "tars")))

    # Nothing is left to do: the same recipe again changes nothing.
    before = [(file.uri, file.size_bytes) for file in on_s3.list("scores")]
    filter_pool(there)
    assert [(file.uri, file.size_bytes) for file in on_s3.list("scores")] == before


def members(tars: Store) -> list[str]:
    names = []
    for tar in tars.list(suffix=".tar"):
        with tarfile.open(fileobj=io.BytesIO(tars.read(tar.name))) as file:
            names += file.getnames()
    return sorted(names)


def test_a_resume_lists_once_and_asks_once_for_each_footer(finished, conditional_s3):
    folder, copy = Path(finished.run_uri), Store("s3://runs/scan")
    for file in folder.rglob("*"):
        if file.is_file():
            copy.write(str(file.relative_to(folder)), file.read_bytes())
    run = open_run(copy.uri)
    parts = len(part_names(run.store))
    conditional_s3.reset()
    assert scan_ledger(run.store, run.fingerprint).part_count == parts > 3
    counts = {operation: n for (operation, _), n in conditional_s3.counts.items()}
    assert counts == {"LIST": 1, "GET": parts}


OTHER_SECRET = "another/recognisable+secret"


@pytest.mark.parametrize(
    ("settings", "environment", "faults", "sentence"),
    [
        (
            ['pool.uri="s3://no-such-bucket/*.tar"'],
            {},
            Faults(),
            "there is no bucket no-such-bucket",
        ),
        (
            ['run_uri="s3://no-such-bucket/run"'],
            {},
            Faults(),
            "there is no bucket no-such-bucket",
        ),
        ([], {"AWS_SECRET_ACCESS_KEY": OTHER_SECRET}, Faults(), "does not accept the credentials"),
        (
            [],
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            Faults(),
            "set AWS_ACCESS_KEY_ID",
        ),
        ([], {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, Faults(), "check AWS_ENDPOINT_URL"),
        ([], {}, Faults(share=1.0, kinds=(Fault.EXPIRED,)), "the credentials have expired"),
        (
            [],
            {},
            Faults(share=1.0, kinds=(Fault.DENIED,), operations=("LIST",)),
            "s3:ListBucket",
        ),
        (
            [],
            {},
            Faults(share=1.0, kinds=(Fault.DENIED,), operations=("PUT",)),
            "s3:PutObject",
        ),
        ([f'run_uri="s3://key:{OTHER_SECRET}@runs/x"'], {}, Faults(), "URI without credentials"),
    ],
    ids=[
        "no pool bucket",
        "no run bucket",
        "wrong secret",
        "no credentials",
        "no endpoint",
        "expired",
        "no permission to list",
        "no permission to write",
        "secret in the URI",
    ],
)
def test_what_cannot_work_ends_filter_with_exit_2_within_10_s_and_a_sentence_that_helps(
    settings,
    environment,
    faults,
    sentence,
    s3,
    proxy,
    fresh_s3,
    recipe,
    pool,
    tmp_path,
    monkeypatch,
    capsys,
):
    upload(pool, "s3://pools/wrong")
    job = recipe("s3://pools/wrong/*.tar", f"run_uri=s3://runs/{tmp_path.name}/run")
    (tmp_path / "recipe.toml").write_text(toml_of(recipe_values(job)))
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    fresh_s3()
    proxy.faults = faults
    start = time.monotonic()
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    code = cli.run(["filter", str(tmp_path / "recipe.toml"), *arguments])
    said = "".join(capsys.readouterr())
    assert code == 2, said
    assert sentence in said
    assert time.monotonic() - start < 10
    assert s3.secret not in said
    assert OTHER_SECRET not in said


def toml_of(values: dict) -> str:
    """The recipe's sections that a test sets, as TOML."""
    kept = {key: values[key] for key in ("run_uri", "pool", "networks", "scorers", "execution")}
    lines = [f"run_uri = {json.dumps(kept.pop('run_uri'))}"]
    for name, section in kept.items():
        for item in section if isinstance(section, list) else [section]:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{k} = {json.dumps(v)}" for k, v in item.items() if v is not None]
    return "\n".join([*lines, "[select]", "keep_fraction = 0.3"])


@pytest.mark.slow
def test_no_byte_that_a_run_leaves_holds_the_secret(s3, proxy, recipe, pool, tmp_path):
    upload(pool, "s3://pools/secret")
    job = recipe("s3://pools/secret/*.tar", "run_uri=s3://runs/secret/run")
    (tmp_path / "recipe.toml").write_text(toml_of(recipe_values(job)))
    proxy.faults = Faults(share=0.2, seed=2, kinds=(Fault.SLOW_DOWN, Fault.RESET, Fault.SHORT))
    # Ray's sockets need a short path.
    session = Path(tempfile.mkdtemp(prefix="dfn_ray-", dir="/tmp"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dfn_ray.cli", "filter", str(tmp_path / "recipe.toml")],
            env=os.environ | {"RAY_ADDRESS": "local", "RAY_TMPDIR": str(session)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        files = [
            path
            for folder in (s3.folder / "runs" / "secret", session)
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        assert any(path.name == "run.json" for path in files)
        assert any(path.name.startswith("raylet") for path in files)
        for form in (s3.secret.encode(), quote(s3.secret, safe="").encode()):
            assert form not in done.stdout + done.stderr
            assert [path for path in files if form in path.read_bytes()] == []
    finally:
        shutil.rmtree(session, ignore_errors=True)


@pytest.mark.parametrize("calibrates", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_commit_without_the_right_to_write_ends_the_run_in_its_first_round(
    local_ray, s3, proxy, recipe, pool, tmp_path, monkeypatch, calibrates
):
    rounds = []

    def counted(*args, **kwargs):
        rounds.append(kwargs["limits"].strict)
        proxy.faults = Faults(share=1.0, kinds=(Fault.DENIED,), operations=("PUT",))
        return score_stream(*args, **kwargs)

    score_stream = chain.score_stream
    monkeypatch.setattr(chain, "score_stream", counted)
    rule = [] if calibrates else ["select.keep_fraction=none", "select.threshold=0.0"]
    job = recipe(pool, f"run_uri=s3://runs/{tmp_path.name}/run", *rule)
    with pytest.raises(StorageAccessError, match="s3:PutObject"):
        filter_pool(job)
    assert rounds == [False], "a round whose errors do not end the run, and no other"


@pytest.mark.parametrize("size", [2**20, 60 * 2**20])
def test_a_stream_that_breaks_leaves_no_object_and_no_upload(s3, proxy, size):
    store = Store(f"s3://runs/streams-{size}")

    def pieces():
        yield b"a" * size
        raise RuntimeError("source died")

    with pytest.raises(RuntimeError, match="source died"):
        store.write_stream("list.npy", pieces())
    begun = size > 50 * 2**20
    assert proxy.counts["POST", "served"] == proxy.counts["DELETE", "served"] == begun
    # The destructor of a file that is not closed begins another upload.
    files = [found for found in gc.get_objects() if type(found) is s3fs.S3File]
    assert all(file.closed for file in files if file.path == f"runs/streams-{size}/list.npy")
    assert not store.exists("list.npy")
    store.write_stream("list.npy", [b"ab", b"cd"])
    assert store.read("list.npy") == b"abcd"


def test_a_missing_bucket_is_named_before_anything_starts(s3, recipe):
    with pytest.raises(StorageAccessError, match="no-such-bucket"):
        list_shards(recipe("s3://no-such-bucket/*.tar").pool)


@pytest.mark.slow
def test_image_parquet_is_readable_from_s3_by_plain_pyarrow(local_ray, s3, recipe, pool):
    job = recipe(pool, "run_uri=s3://runs/plain/run")
    filter_pool(job)
    fs, root = fsspec.url_to_fs(f"{job.run_uri}/subset")
    table = pa.concat_tables([pq.read_table(fs.open(path)) for path in fs.ls(root, detail=False)])
    assert table.num_rows == 90
