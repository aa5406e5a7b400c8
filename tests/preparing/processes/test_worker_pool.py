"""Worker processes return what `prepare` computes here, and lose only what kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from dfn_ray.config import Captions, Decode, Pool, Rules
from dfn_ray.errors import WorkersFailedError
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network.tokenizer import TokenizerSpec
from dfn_ray.on_ray.cells import Cell
from dfn_ray.on_ray.work import Work, read_cells
from dfn_ray.pool import list_shards
from dfn_ray.preparing.prepare import Preparation, prepare
from dfn_ray.preparing.processes import worker_pool as pool_module
from dfn_ray.preparing.processes.messages import Job
from dfn_ray.preparing.processes.worker_pool import WorkerPool
from dfn_ray.testing import lethal
from dfn_ray.testing.sample_pools import TarBuilder, photo, write_pool

CHUNK_ROWS = 16
TRANSFORM = ImageTransform(
    size=(32, 40), resize_mode="shortest", interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
)
SMALL = replace(TRANSFORM, size=(8, 8))


def job(folder: Path, *, timeout_s: float = 60.0, stage=prepare) -> Job:
    preparation = Preparation(
        Rules(),
        Decode(timeout_s=timeout_s),
        (TRANSFORM, SMALL),
        (TokenizerSpec(context_length=77),),
        Captions(),
    )
    pool = Pool(uri=(str(folder),), chunk_rows=CHUNK_ROWS)
    return Job(pool=pool, stage=partial(stage, preparation=preparation), timeout_s=timeout_s)


def works(folder: Path) -> list[Work]:
    return [Work(shard) for shard in list_shards(Pool(uri=(str(folder),)))]


def here(job: Job, works: list[Work]) -> list[Cell]:
    cells = (cell for work in works for cell in read_cells(work, job.pool, report_unread=True))
    return [cell if cell.unread else job.stage(cell) for cell in cells]


def snapshot(cell: Cell) -> tuple:
    """All that a cell holds, by value: its memory is overwritten by the next one."""
    assert cell.inputs is not None
    columns = {name: cell.inputs[name].to_pylist() for name in sorted(cell.inputs.column_names)}
    return cell.chunk, dict(cell.chunk.notes), cell.samples.to_pylist(), columns


@pytest.fixture
def workers():
    pools: list[WorkerPool] = []

    def start(size: int, job: Job) -> WorkerPool:
        pools.append(WorkerPool(size, job))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


@pytest.fixture
def armed(monkeypatch):
    """Makes processes that are started now die of lethal files."""
    paths = [str(lethal._ARMED_START), str(Path(lethal.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """4 shards of 40 samples, some of them bad."""
    folder = write_pool(tmp_path_factory.mktemp("pool"), shards=3, samples=40)
    tar = TarBuilder()
    for number in range(40):
        image = b"no image" if number % 7 == 3 else photo(number)
        tar.sample(f"{number:03d}", image=image, caption=f"caption {number}")
    (folder / "bad.tar").write_bytes(tar.getvalue())
    return folder


def lethal_pool(folder: Path, image: bytes, *, at: int) -> Path:
    folder.mkdir()
    for shard in range(2):
        tar = TarBuilder()
        for number in range(40):
            is_lethal = shard == 0 and number == at
            tar.sample(
                f"{number:03d}", image=image if is_lethal else photo(number), caption=f"a {number}"
            )
        (folder / f"{shard}.tar").write_bytes(tar.getvalue())
    return folder


def reasons(cells: list[Cell]) -> dict[str, str]:
    """The reason of each failed sample, by shard and key."""
    return {
        f"{Path(cell.chunk.shard).stem}/{row['key']}": row["reason"]
        for cell in cells
        for row in cell.samples.to_pylist()
        if row["reason"]
    }


def detached(cells) -> list[Cell]:
    """The cells without their inputs, in memory of their own."""
    return [
        replace(cell, samples=type(cell.samples).from_pylist(cell.samples.to_pylist()), inputs=None)
        for cell in cells
    ]


def test_cells_equal_those_prepared_here(workers, folder):
    expected = [snapshot(cell) for cell in here(job(folder), works(folder))]
    pool = workers(2, job(folder))
    for _ in range(2):  # the second time in memory that has been used
        assert [snapshot(cell) for cell in pool.cells(works(folder))] == expected
    assert {"bad/003", "bad/010"} <= set(reasons(detached(pool.cells(works(folder)))))


def test_threads_get_their_own_shards(workers, folder):
    expected = {work.shard.uri: [snapshot(c) for c in here(job(folder), [work])]
                for work in works(folder)}  # fmt: skip
    pool, found = workers(2, job(folder)), {}

    def score(work: Work) -> None:
        found[work.shard.uri] = [snapshot(cell) for cell in pool.cells([work])]

    threads = [threading.Thread(target=score, args=(work,)) for work in works(folder)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.parametrize("at", [0, 15, 16, 39])
def test_an_image_that_kills_its_process_costs_itself(workers, tmp_path, armed, at):
    folder = lethal_pool(tmp_path / "pool", lethal.KILLER, at=at)
    cells = detached(workers(1, job(folder)).cells(works(folder)))
    assert reasons(cells) == {f"0/{at:03d}": "decode_crashed"}
    assert [cell.chunk.rows for cell in cells] == [16, 16, 8] * 2


def test_an_image_that_stands_still_costs_itself(workers, tmp_path, armed):
    folder = lethal_pool(tmp_path / "pool", lethal.STALLER, at=20)
    cells = detached(workers(1, job(folder, timeout_s=0.5)).cells(works(folder)))
    assert reasons(cells) == {"0/020": "decode_timeout"}


def test_a_shard_that_kills_its_readers_is_left_there_and_the_next_one_read(
    workers, tmp_path, armed, caplog
):
    folder = lethal_pool(tmp_path / "pool", photo(0), at=0)
    (folder / "0.tar").rename(folder / f"0-{lethal.READER_KILLER}.tar")
    cells = detached(workers(1, job(folder)).cells(works(folder)))
    assert {Path(cell.chunk.shard).stem for cell in cells} == {"1"}
    assert [cell.chunk.rows for cell in cells] == [16, 16, 8]
    assert caplog.text.count("SIGSEGV") == 2


def processes_of(pool: WorkerPool) -> list[psutil.Process]:
    return psutil.Process(pool._server._process.pid).children()


@pytest.mark.parametrize("victim", ["worker", "server"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_killed_process_costs_nothing(workers, folder, victim, after):
    expected = [snapshot(cell) for cell in here(job(folder), works(folder))]
    pool, found = workers(1, job(folder)), []
    for number, cell in enumerate(pool.cells(works(folder))):
        found.append(snapshot(cell))
        if number == after:
            if victim == "server":
                pool._server._process.kill()
            else:
                (worker,) = processes_of(pool)
                worker.kill()
    assert found == expected


def test_a_worker_that_always_dies_leaves_one_shard_after_the_other(workers, folder):
    """Deaths from outside are not told apart here; the next round reads these shards again."""
    pool, found = workers(1, job(folder, stage=_killed)), []
    found = [cell.chunk for cell in pool.cells(works(folder))]
    assert found == []


def _killed(cell, *, preparation, workspace=None):
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_error_of_the_stage_is_raised_here_and_the_worker_goes_on(workers, folder):
    pool = workers(1, job(folder, stage=_broken))
    for _ in range(2):
        with pytest.raises(ValueError, match="a bug"):
            list(pool.cells(works(folder)))
    assert len(processes_of(pool)) == 1


def _broken(cell, *, preparation, workspace=None):
    raise ValueError("a bug")


def test_a_reader_that_stops_early_leaves_a_place_for_the_next(workers, folder):
    pool = workers(1, job(folder))
    for cell in pool.cells(works(folder)):
        assert cell.chunk.first_row == 0
        break
    chunks = [cell.chunk.first_row for cell in pool.cells(works(folder)[:1])]
    assert chunks == [0, 16, 32]
    assert len(processes_of(pool)) == 1


def test_memory_is_used_again(workers, folder):
    pool = workers(1, job(folder))
    list(pool.cells(works(folder)))
    before = psutil.Process().memory_maps(grouped=False)
    for _ in range(3):
        list(pool.cells(works(folder)))
    after = psutil.Process().memory_maps(grouped=False)
    shared = [sum("memfd:dfn_ray" in m.path for m in maps) for maps in (before, after)]
    assert shared[0] >= shared[1] > 0


def test_a_server_that_cannot_start_ends_in_a_sentence(folder, monkeypatch):
    monkeypatch.setattr(pool_module, "START", "raise SystemExit(3)")
    with pytest.raises(WorkersFailedError, match=r"ended 3 times \(exit status 3\)"):
        list(WorkerPool(1, job(folder)).cells(works(folder)))


OWNER = """
import sys, time
from tests.preparing.processes.test_worker_pool import *
pool = WorkerPool(1, job(Path(sys.argv[1])))
cells = pool.cells(works(Path(sys.argv[1])))
next(cells)
print(pool._server._process.pid, *(p.pid for p in processes_of(pool)), flush=True)
time.sleep(60)
"""


def test_workers_die_with_their_owner(folder):
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        owner.kill()
    end = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)
