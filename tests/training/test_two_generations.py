"""Two generations of workers, one stopped at each of its writes while the other continues."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from dfn_ray.errors import RunTakenOverError
from dfn_ray.network.packed import WEIGHTS_FILE
from dfn_ray.pool import listing_table
from dfn_ray.run import Run, RunIdentity, RunKind, open_run, start_run
from dfn_ray.training.checkpoint import commit_checkpoint, read_tensors, remove_old, write_network
from dfn_ray.training.data.seen import Seen
from dfn_ray.training.position import (
    Position,
    begin_generation,
    check_generation,
    latest_position,
    log_lines,
    record_reached,
)
from tests.run.below_ray import WRITES, Moment, at_writes, dies_at, moments_of

BASE, FIRST, SECOND, LAST = 0, 1, 2, 3
"""Number of the generation that wrote a tensor."""


STOPS = (*WRITES, "names")
"""Points where workers are stopped, including the listing that finds files to remove."""


def start(folder: Path) -> Run:
    return start_run(
        str(folder),
        RunIdentity(kind=RunKind.TRAIN, fingerprint={}, listing=listing_table([])),
        recipe={},
    )


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """Power failures are not tested here, so thousands of writes need not wait for the disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def train(run: Run, workers: int, keep: int, *, checkpoints: int = 1, every: int = 10) -> None:
    """The writes of workers: a step per 5 samples, checkpoints and, but for BASE, the network.

    The content of tensors and weights identifies the workers.
    """
    generation = begin_generation(run)
    remove_old(run, generation, keep)
    for number in range(1, checkpoints + 1):
        samples = generation.position.samples_seen + every * number
        record_reached(run, generation, samples - 5)
        commit_checkpoint(
            run,
            generation,
            Position(samples_seen=samples, steps=samples // 5, seen=Seen(1, {1: ((0, samples),)})),
            model={"w": torch.tensor([workers, samples])},
            optimizer={"w/exp_avg": torch.tensor([workers, samples])},
            lines=[{"step": (samples - every + past) // 5} for past in range(5, every + 1, 5)],
            keep=keep,
        )
    if workers != BASE:
        files = {WEIGHTS_FILE: b"%d" % workers, "config": b"same"}
        write_network(run, generation, "network", files)


def train_first(run: Run, keep: int) -> None:
    """Distant checkpoints, so that late writes lie after those of newer workers."""
    train(run, FIRST, keep, checkpoints=3, every=30)


def writers_of(run: Run, position: Position) -> set[int]:
    """The writer of the tensors of a checkpoint, which are complete and of its own samples."""
    writers = set()
    for part, name in (("model", "w"), ("optimizer", "w/exp_avg")):
        workers, samples = read_tensors(run, position, part)[name].tolist()
        assert samples == position.samples_seen
        writers.add(workers)
    return writers


def network_of(folder: Path) -> bytes:
    return (folder / "network" / WEIGHTS_FILE).read_bytes()


def check_log(run: Run) -> None:
    until = latest_position(run).samples_seen
    assert [line["step"] for line in log_lines(run)] == list(range(1, until // 5 + 1))


def check_nothing_is_left_over(folder: Path, keep: int) -> None:
    """After one more commit, only the latest checkpoints exist, each with its marker."""
    run = start(folder)
    before = latest_position(run).samples_seen
    train(run, LAST, keep)
    position = latest_position(run)
    assert position.samples_seen == before + 10
    assert writers_of(run, position) == {LAST}
    check_log(run)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    folders = [name for name in names if "." not in name]
    assert len(folders) == keep
    assert names == sorted([*folders, *(f"{name}.json" for name in folders)])


def begun(folder: Path, keep: int) -> Run:
    """A run with two checkpoints, held by a new driver."""
    train(start(folder), BASE, keep, checkpoints=2)
    return start(folder)


def moments(folder: Path, keep: int) -> list[Moment]:
    run = begun(folder, keep)
    return moments_of(lambda: train_first(run, keep), STOPS)


def train_interleaved(
    run: Run, folder: Path, moment: Moment, *, keep: int, other_driver: bool
) -> bool:
    """Runs both, the second at one write of the first; True if the first was stopped."""

    def meet(now: int, at: str) -> None:
        if (now, at) == (moment.number, moment.when) and not met:
            met.append(True)
            train(start(folder) if other_driver else run, SECOND, keep)
            networks.append(network_of(folder))

    met: list[bool] = []
    networks: list[bytes] = []
    stopped = False
    with at_writes(meet, STOPS):
        try:
            train_first(run, keep)
        except RunTakenOverError:
            stopped = True
    assert met
    assert [network_of(folder)] == networks
    return stopped


CASES = [
    (1, True),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, False), (2, False), (2, True))),
]


@pytest.mark.parametrize(("keep", "other_driver"), CASES)
def test_workers_that_were_replaced_change_nothing_whenever_they_were_stopped(
    tmp_path, keep, other_driver
):
    folder = tmp_path / "run"
    for moment in moments(tmp_path / "calm", keep):
        run = begun(folder, keep)
        with moment.noted():
            stopped = train_interleaved(run, folder, moment, keep=keep, other_driver=other_driver)
            # Of one driver, those that were stopped before they had begun are the later ones.
            assert stopped is (other_driver or (moment.number, moment.when) != (0, "before"))
            now = open_run(str(folder))
            position = latest_position(now)
            assert writers_of(now, position) == {SECOND if stopped else FIRST}
            check_log(now)
            check_nothing_is_left_over(folder, keep)
        shutil.rmtree(folder)


@pytest.mark.parametrize(("keep", "other_driver"), CASES)
def test_after_a_crash_at_any_write_the_next_workers_go_on_from_a_whole_checkpoint(
    tmp_path, keep, other_driver
):
    folder = tmp_path / "run"
    for moment in moments(tmp_path / "calm", keep):
        run = begun(folder, keep)
        with moment.noted():
            dies_at(moment, partial(train_first, run, keep), STOPS)
            now = start(folder) if other_driver else run
            position = latest_position(now)
            assert writers_of(now, position) == {BASE if position.samples_seen == 20 else FIRST}
            train(now, SECOND, keep)
            assert latest_position(now).samples_seen == position.samples_seen + 10
            assert network_of(folder) in (b"%d" % FIRST, b"%d" % SECOND)
            check_log(now)
            check_nothing_is_left_over(folder, keep)
        shutil.rmtree(folder)


def test_two_starts_of_one_driver_at_a_time_are_two_generations(tmp_path):
    run, other = start(tmp_path / "run"), []

    def meet(number: int, when: str) -> None:
        if not other:
            other.append(None)
            other[0] = begin_generation(run)

    with at_writes(meet):
        mine = begin_generation(run)
    assert (other[0].number, mine.number) == (1, 2)
    check_generation(run, mine)
    with pytest.raises(RunTakenOverError):
        check_generation(run, other[0])


def test_workers_that_find_nothing_left_to_do_remove_what_a_crash_left(tmp_path):
    folder = tmp_path / "run"
    run = begun(folder, 1)
    leftover = folder / "checkpoints" / "samples-000000000015-000001-0001"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    train(run, FIRST, 1, checkpoints=0)
    assert not leftover.exists()
    assert writers_of(run, latest_position(run)) == {BASE}


def test_the_writes_of_workers_are_those_of_every_step(tmp_path):
    made = "\n".join(moment.name for moment in moments(tmp_path / "calm", 1))
    for step in (
        "create generations/000002-0002.json", "create generations/000002-0002.start.json",
        ".reached.json",
        "/model.safetensors", "/optimizer.safetensors", "write log/",
        "write checkpoints/samples-000000000050-000002-0002.json",
        "delete checkpoints/samples-000000000020-000001-0001.json",
        "delete_folder checkpoints/samples-000000000020-000001-0001",
    ):  # fmt: skip
        assert step in made, step
