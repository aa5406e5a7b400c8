"""Results of readers: damage by name, storage failures as errors, and nothing that was not read."""

from __future__ import annotations

import errno
import gzip
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from dfn_ray.config import Pool
from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.pool import Shard, iter_chunks, list_shards, read_chunk, read_rows
from dfn_ray.pool.chunking import RowSelection
from dfn_ray.pool.examination import read_in_fresh_process
from dfn_ray.pool.reading import shard_format
from dfn_ray.schema import ShardFault
from dfn_ray.storage import stat
from dfn_ray.testing import lethal
from dfn_ray.testing.sample_pools import TarBuilder

SURPRISE_AT = 7


def tar_of(count: int, *, surprise: int | None = None, image_bytes: int = 9) -> bytes:
    tar = TarBuilder()
    for number in range(count):
        what = lethal.SURPRISE if number == surprise else "plain"
        image = bytes([number]) * image_bytes
        tar.sample(f"{number:03d}", image=image, caption=f"c{number}", metadata={"what": what})
    return tar.getvalue()


def parquet_of(count: int) -> bytes:
    file = io.BytesIO()
    images = [bytes([n]) * 999 for n in range(count)]
    pq.write_table(pa.table({"image": images, "text": [f"c{n}" for n in range(count)]}), file)
    return file.getvalue()


FORMATS = {
    "0.tar": tar_of(20),
    "0.tar.gz": gzip.compress(tar_of(20), 0),
    "0.parquet": parquet_of(20),
}


@pytest.fixture
def surprised(monkeypatch) -> None:
    """Gives this process and those it starts the bugs of `dfn_ray.testing.lethal`."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(json, "loads", json.loads)
    monkeypatch.setattr(LocalFileSystem, "_open", LocalFileSystem._open)
    Image.init()
    monkeypatch.setitem(Image.OPEN, "JPEG", Image.OPEN["JPEG"])
    lethal.arm()


@pytest.fixture
def on_disk(tmp_path):
    """Writes bytes to a file; returns the shard as listed."""

    def write(data: bytes, name: str = "0.tar") -> Shard:
        path = tmp_path / name
        path.write_bytes(data)
        return Shard(str(path), name, len(data))

    return write


def pool_of(shard: Shard) -> Pool:
    return Pool(uri=(shard.uri,), chunk_rows=3)


def read_into(chunks: list, shard: Shard, then=lambda: None) -> None:
    """Reads a shard and appends its chunks to a list; calls `then` after the first."""
    for chunk, _ in iter_chunks(shard, pool_of(shard)):
        chunks.append(chunk)
        if len(chunks) == 1:
            then()


def test_the_bugs_reach_processes_that_start_and_leave_no_files_behind(tmp_path):
    starts_another = (
        "import subprocess, sys; from dfn_ray.testing import lethal; lethal.arm(); "
        "sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"
    )
    parses = ["import json, sys; json.loads(sys.argv[1])", json.dumps(lethal.SURPRISE)]
    paths = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", starts_another, *parses],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OverflowError: a surprise" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_kills_its_reader_is_examined_up_to_the_chunk_that_kills(surprised, on_disk):
    tar = TarBuilder()
    for number in range(12):
        what = lethal.READER_KILLER if number == 8 else "plain"
        tar.sample(f"{number:03d}", image=b"image", caption="c", metadata={"what": what})
    shard = on_disk(tar.getvalue())
    verdict = read_in_fresh_process(shard, pool_of(shard), RowSelection())
    assert (verdict.signal, verdict.row, verdict.error) == (signal.SIGSEGV, 6, "")
    skipped = read_in_fresh_process(shard, pool_of(shard), RowSelection(skip=frozenset({0, 6})))
    assert (skipped.signal, skipped.row, skipped.error) == (0, 12, "")


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_an_exception_that_the_content_makes_again_in_a_fresh_process_ends_the_shard_there(
    surprised, on_disk, squeeze
):
    shard = on_disk(squeeze(tar_of(12, surprise=SURPRISE_AT)))
    chunks = [chunk for chunk, _ in iter_chunks(shard, pool_of(shard))]
    assert [(chunk.first_row, chunk.rows, chunk.last) for chunk in chunks] == [
        (0, 3, False),
        (3, 3, False),
        (6, 0, True),
    ]
    assert chunks[-1].fault is ShardFault.CRASHES_READER
    assert chunks[-1].detail == "OverflowError: a surprise"
    assert sum(chunk.bytes_read for chunk in chunks) == shard.size_bytes
    resumed = [chunk for chunk, _ in iter_chunks(shard, pool_of(shard), skip={0, 3})]
    assert [(c.first_row, c.rows, c.fault) for c in resumed] == [(6, 0, ShardFault.CRASHES_READER)]
    # What is passed is not parsed, and so does not end the shard again: its committed end does.
    rest = [c.first_row for c, _ in iter_chunks(shard, pool_of(shard), skip={3, 6}, last=6)]
    assert rest == [0]


def test_an_exception_that_does_not_come_again_is_no_fault_of_the_shard(
    on_disk, monkeypatch, tmp_path
):
    shard, plain = on_disk(tar_of(12)), json.loads
    parsed = iter(range(100))

    def once(text, **options):
        if next(parsed) == SURPRISE_AT:
            raise OverflowError("bad memory")
        return plain(text, **options)

    monkeypatch.setattr(json, "loads", once)
    chunks = []
    with pytest.raises(StorageError, match=r"row 6 with OverflowError.*no exception.*run again"):
        chunks.extend(chunk for chunk, _ in iter_chunks(shard, pool_of(shard)))
    assert all(chunk.fault is None for chunk in chunks)
    monkeypatch.undo()
    chunks = [chunk for chunk, _ in iter_chunks(shard, pool_of(shard))]
    assert sum(chunk.rows for chunk in chunks) == 12


def test_rows_of_a_shard_that_surprises_its_reader_are_refused_by_name(surprised, on_disk):
    shard = on_disk(tar_of(12, surprise=SURPRISE_AT))
    pool = pool_of(shard)
    (table,) = read_rows(shard, pool, {1})
    assert table["row"].to_pylist() == [1]
    with pytest.raises(ShardChangedError, match=r"crashes_reader: OverflowError: a surprise"):
        list(read_rows(shard, pool, {1, SURPRISE_AT}))
    untroubled = on_disk(tar_of(12), "1.tar")
    third = [chunk for chunk, _ in iter_chunks(untroubled, pool)][2]
    with pytest.raises(ShardChangedError, match=r"crashes_reader: OverflowError: a surprise"):
        read_chunk(shard, pool, third)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError("no memory"), MemoryError),
        (ImportError("no package"), ImportError),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StorageError),
        (OSError(errno.EMFILE, "Too many open files"), StorageError),
    ],
)
def test_what_says_nothing_about_the_content_is_raised_and_blames_no_shard(
    on_disk, monkeypatch, error, raised
):
    shard = on_disk(tar_of(12))

    def fail(text, **options):
        raise error

    monkeypatch.setattr(json, "loads", fail)
    with pytest.raises(raised, match=str(error.args[-1])):
        list(iter_chunks(shard, pool_of(shard)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        EOFError("the end"),
        ValueError("no range"),
        KeyError("reset"),
        RuntimeError("closed"),
        pa.ArrowInvalid("reset"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_an_open_file_raises_is_the_stores_failure(put, monkeypatch, name, error):
    shard = put(FORMATS[name], name=name)
    pool = pool_of(shard)
    calls = count_reads(monkeypatch, shard)
    whole = [chunk for chunk, _ in iter_chunks(shard, pool)]
    for failing in range(calls()):
        count_reads(monkeypatch, shard, failing=failing, error=error)
        chunks = []
        with pytest.raises(StorageError, match="cannot read it"):
            read_into(chunks, shard)
        assert chunks == whole[: len(chunks)]
        assert not any(chunk.last for chunk in chunks)


def count_reads(monkeypatch, shard, *, failing: int | None = None, error: Exception | None = None):
    """Counts reads of in-memory files from now on, and lets one fail; returns the counter."""
    memory_file = type(fsspec.filesystem("memory").open(shard.uri))
    made = [0]

    def read(self, size=-1):
        made[0] += 1
        if made[0] - 1 == failing:
            raise error
        return io.BytesIO.read(self, size)

    monkeypatch.setattr(memory_file, "read", read, raising=False)
    return lambda: made[0]


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_that_gives_less_than_it_was_asked_for_is_no_truncated_shard(
    put, monkeypatch, name
):
    shard = put(FORMATS[name], name=name)
    memory_file = type(fsspec.filesystem("memory").open(shard.uri))
    monkeypatch.setattr(
        memory_file,
        "read",
        lambda self, size=-1: io.BytesIO.read(self, size)[: 500 if self.tell() > 1000 else None],
        raising=False,
    )
    with pytest.raises(StorageError, match="returned fewer bytes than requested"):
        list(iter_chunks(shard, pool_of(shard)))


def test_a_missing_shard_is_one_that_its_folder_no_longer_lists(tmp_path, on_disk):
    shard = on_disk(tar_of(3))
    Path(shard.uri).unlink()
    ((chunk, _),) = iter_chunks(shard, pool_of(shard))
    assert (chunk.fault, chunk.detail) == (ShardFault.MISSING, "deleted since it was listed")
    absent_root = Shard(str(tmp_path / "unmounted" / "0.tar"), "0.tar", 5)
    with pytest.raises(StorageError, match="the store does not confirm"):
        list(iter_chunks(absent_root, pool_of(absent_root)))
    with pytest.raises(StorageError, match="the store does not confirm"):
        shard_format(absent_root, pool_of(absent_root))
    folder = Pool(uri=(str(tmp_path / "unmounted"),), format="folder")
    with pytest.raises(StorageError, match="check that its disk is mounted"):
        list(iter_chunks(Shard(str(tmp_path / "unmounted/cat"), "cat", 5), folder))


class _Answers(BaseHTTPRequestHandler):
    def __init__(self, status, *arguments):
        self.status = status
        super().__init__(*arguments)

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format, *args):
        return


@contextmanager
def server_that_answers(status: int) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, status)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_taken_on_trust_that_is_not_there_is_missing_by_the_servers_answer(status):
    with server_that_answers(status) as root:
        (shard,) = list_shards(Pool(uri=(f"{root}/0.tar",)))
        ((chunk, _),) = iter_chunks(shard, pool_of(shard))
    assert (chunk.fault, chunk.detail) == (ShardFault.MISSING, f"HTTP {status}")


@pytest.mark.parametrize("name", FORMATS)
def test_a_shard_of_another_size_than_listed_is_read_no_further(on_disk, name):
    listed = on_disk(FORMATS[name], name)
    on_disk(FORMATS[name] + b"more", name)
    sizes = f"listed with {len(FORMATS[name]):,} bytes, found with {len(FORMATS[name]) + 4:,}"
    with pytest.raises(ShardChangedError, match=sizes):
        list(iter_chunks(listed, pool_of(listed)))
    with pytest.raises(ShardChangedError, match=sizes):
        list(read_rows(listed, pool_of(listed), {0}))


@pytest.mark.parametrize("name", FORMATS)
def test_any_chunks_of_a_shard_can_be_passed_its_last_one_too(on_disk, name):
    shard = on_disk(FORMATS[name], name)
    chunks = [chunk for chunk, _ in iter_chunks(shard, pool_of(shard))]
    firsts, end = [chunk.first_row for chunk in chunks], chunks[-1].first_row
    assert len(chunks) > 3
    for count in range(len(chunks) + 1):
        for skip in itertools.combinations(firsts, count):
            last = end if end in skip else None
            found = [c for c, _ in iter_chunks(shard, pool_of(shard), skip=skip, last=last)]
            assert found == [chunk for chunk in chunks if chunk.first_row not in skip]


@pytest.mark.parametrize("name", FORMATS)
def test_a_shard_without_a_chunk_that_was_read_of_it_gives_no_last_chunk(on_disk, name):
    """Without a size or version in the listing, only committed chunks show that it changed."""
    whole = replace(on_disk(FORMATS[name], name), size_bytes=0)
    end = [chunk.first_row for chunk, _ in iter_chunks(whole, pool_of(whole))][-1]
    longer = {end}  # committed as a chunk behind which there was more
    moved = {0, end - 1}
    for skip, last, says in (
        (longer, None, "it now ends with a chunk that was not the last one"),
        (moved, None, f"no chunk begins at row {end - 1}, where one began"),
        ({end + 3}, end + 3, f"no chunk begins at row {end + 3}, where one began"),
        ({end + 3, end + 6}, end + 6, f"no chunk begins at row {end + 3}, where one began"),
    ):
        found = []
        rest = iter_chunks(whole, pool_of(whole), skip=skip, last=last)
        with pytest.raises(ShardChangedError, match=says):
            found.extend(chunk for chunk, _ in rest)
        assert not any(chunk.last for chunk in found)


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "grown"])
def test_a_file_that_changes_while_it_is_read_gives_no_closing_chunk(on_disk, cut):
    data = tar_of(12, image_bytes=200_000)
    shard, chunks = on_disk(data), []

    def change():
        with Path(shard.uri).open("r+b") as file:
            file.truncate(len(data) // 2 if cut else 2 * len(data))

    with pytest.raises(ShardChangedError, match=f"it had {len(data):,} bytes and has"):
        read_into(chunks, shard, change)
    assert chunks
    assert all(chunk.fault is None and not chunk.last for chunk in chunks)


def test_damage_of_a_shard_that_was_replaced_meanwhile_is_not_committed(on_disk):
    data = tar_of(12, image_bytes=200_000)
    shard, chunks = on_disk(data[: len(data) // 2 - 300]), []

    def replace_it():
        whole = Path(f"{shard.uri}.whole")
        whole.write_bytes(data)
        whole.rename(shard.uri)

    with pytest.raises(ShardChangedError, match=f"found with {len(data):,}"):
        read_into(chunks, shard, replace_it)
    assert not any(chunk.last for chunk in chunks)


def test_an_object_replaced_by_one_of_its_size_is_noticed_by_its_version(s3, fresh_s3):
    uri = "s3://pools/replaced/0.tar"
    fs = fsspec.filesystem("s3")
    data = tar_of(20, image_bytes=2**20)
    fs.pipe_file(uri, data)
    found = stat(uri)
    version = fs.info(uri)["ETag"]
    shard = Shard(uri, "0.tar", found.size_bytes, version=version)
    assert sum(chunk.rows for chunk, _ in iter_chunks(shard, pool_of(shard))) == 20
    chunks = []
    with pytest.raises(ShardChangedError, match=r"0\.tar"):
        read_into(chunks, shard, lambda: fs.pipe_file(uri, data[::-1]))
    assert not any(chunk.last for chunk in chunks)
    with pytest.raises(ShardChangedError, match=r"listed with version .*, found with"):
        list(iter_chunks(shard, pool_of(shard)))
