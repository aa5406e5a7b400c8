from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.case import Case, PromiseError, Target, rng_of
from tests.fuzz.worker import Plan, Result, results

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1600)
@pytest.mark.parametrize("inputs", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_inputs_of_all_kinds_break_no_promise(inputs, tmp_path):
    # A separate process, because its workers are forked and this one may run torch's threads.
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--inputs",
        str(inputs),
        "--seed",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_inputs_in_any_order():
    script = (
        "import hashlib, sys\n"
        "from tests.fuzz.case import rng_of; from tests.fuzz.targets import target_of\n"
        "for index in map(int, sys.argv[1:]):\n"
        "    case = target_of(index).make(rng_of(5, index))\n"
        "    content = repr((case.note, sorted(case.files.items())))\n"
        "    print(index, hashlib.sha256(content.encode()).hexdigest())\n"
    )

    def made(indexes: list[int]) -> list[str]:
        command = [sys.executable, "-c", script, *map(str, indexes)]
        return sorted(
            subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.split("\n")
        )

    indexes = list(range(44))
    assert made(indexes) == made(indexes[::-1])


def fuzzed(tmp_path: Path, check, *, inputs: int = 3, hangs_s: float = 60) -> list[Result]:
    """The results of inputs that all have this check, in one worker."""

    def make(rng):
        note = f"{rng.random()}"
        return Case(valid=True, note=note, files={"a/b": note.encode()}, check=check)

    plan = Plan(seed=1, out=tmp_path, target_of=lambda _: Target("odd", 1, make), hangs_s=hangs_s)
    return sorted(results(plan, range(inputs), 1), key=lambda result: result.index)


def only_on_the_second(tmp_path: Path, what):
    """A check that calls `what` on its second call."""
    marks = tmp_path / "marks"
    marks.touch()

    def check(folder: Path) -> Counter[str]:
        del folder
        with marks.open("a") as file:
            file.write("x")
        if marks.stat().st_size == 2:
            what()
        return Counter(["ok"])

    return check


def promise_breaks():
    raise PromiseError("a promise: of a kind")


@pytest.mark.parametrize(
    ("what", "failure"),
    [
        (promise_breaks, "a promise"),
        (lambda: {}["x"], "KeyError outside the product"),
        (lambda: os.kill(os.getpid(), 9), "died: SIGKILL"),
        (lambda: os._exit(3), "died: exit 3"),
        (lambda: time.sleep(100), "hangs: no result after 3 s"),
        pytest.param(  # growth is seen in a small process only, as `python -m tests.fuzz` is
            lambda: bytearray(2**29).count(1),
            "memory: one input takes too much",
            marks=pytest.mark.slow,
        ),
        (lambda: bytes(2**33), "MemoryError outside the product"),
    ],
)
def test_an_input_that_fails_in_any_way_is_named_and_written_and_the_next_ones_go_on(
    tmp_path, what, failure
):
    found = fuzzed(
        tmp_path, only_on_the_second(tmp_path, what), hangs_s=3 if "hangs" in failure else 60
    )
    assert [result.failure for result in found] == [None, failure, None]
    assert "--seed 1 --only 1\n" in (tmp_path / "odd-1-1" / "failure.txt").read_text()
    assert (tmp_path / "odd-1-1" / "a_b").read_text() == str(rng_of(1, 1).random())


@pytest.mark.parametrize(
    "end", [lambda: os.kill(os.getpid(), 9), lambda: None], ids=["killed", "well"]
)
def test_nothing_is_left_in_the_temporary_folder_whatever_ends_an_input(tmp_path, monkeypatch, end):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def leave_files_and_end():
        tempfile.mkdtemp(prefix="left-by-this-process-")
        command = "import tempfile; tempfile.mkdtemp(prefix='left-by-a-process-of-it-')"
        subprocess.run([sys.executable, "-c", command], check=True)
        end()

    fuzzed(tmp_path, only_on_the_second(tmp_path, leave_files_and_end))
    assert list(temporary.iterdir()) == []


def test_an_input_that_computes_too_long_is_slow(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.worker.MAX_CPU_S", 0.2)

    def compute():
        end = time.process_time() + 0.4
        while time.process_time() < end:
            pass

    assert [
        result.failure for result in fuzzed(tmp_path, only_on_the_second(tmp_path, compute))
    ] == [None, "slow", None]
