from __future__ import annotations

import io

import pytest

from dfn_ray.console.progress import Progress
from dfn_ray.console.tables import duration, table
from dfn_ray.filtering.selecting.selection_table import selection_table


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_rate_share_time_left_and_drops_by_reason():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(1000, stream=stream, clock=clock)
    clock.now = 10
    progress.add(100, 250, {"scored": 90, "failed/not_an_image": 7, "rejected/image_side": 3})
    line = progress.line()
    assert " 25.0% | 100 samples | 10/s | 30 s left | 10 rejected or failed" in line
    assert "(not_an_image 7, image_side 3)" in line


def test_scorers_count_as_alive_within_the_window_of_rates():
    clock = Clock()
    progress = Progress(100, stream=io.StringIO(), clock=clock)
    progress.add(1, 1, {"scored": 1}, scorers=["a", "b"])
    clock.now = 50
    progress.add(1, 1, {"scored": 1}, scorers=["b"])
    assert "| 2 scorers |" in progress.line()
    clock.now = 100
    assert "| 1 scorers |" in progress.line()


def test_rates_count_only_what_this_attempt_did():
    clock = Clock()
    progress = Progress(1000, stream=io.StringIO(), clock=clock)
    progress.resume(500, 500, {"scored": 500})
    clock.now = 10
    progress.add(100, 100, {"scored": 100})
    assert "600 samples | 10/s | 40 s left" in progress.line()


def test_a_log_gets_one_line_every_30_seconds_and_a_terminal_one_line_in_place():
    clock, log, terminal = Clock(), io.StringIO(), Terminal()
    both = [Progress(100, stream=stream, clock=clock) for stream in (log, terminal)]
    for second in range(61):
        clock.now = second
        for progress in both:
            progress.add(1, 1, {"scored": 1})
    assert log.getvalue().count("\n") == 2
    assert terminal.getvalue().count("\n") == 0
    assert terminal.getvalue().count("\r") == 60


def test_a_line_that_renews_itself_fits_the_terminal_and_one_that_stays_is_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = Progress(10**9, stream=stream, clock=Clock())
    progress.add(1, 1, {"failed/not_an_image": 7, "rejected/image_side": 3})
    assert len(progress.line()) > 60
    progress._status.say(progress.line())
    assert stream.getvalue() == f"\r\x1b[2K{progress.line()[:59]}"
    progress.close()
    assert progress.line() in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "unknown time"),
        (42, "42 s"),
        (420, "7 min"),
        (12000, "3 h 20 min"),
        (2e6, "23.1 days"),
    ],
)
def test_durations_are_readable(seconds, said):
    assert duration(seconds) == said


def test_a_table_aligns_numbers_and_shows_shares():
    assert table([("all", 1000), ("  some", 25), ("name", "x")], total=1000).splitlines() == [
        "all     1,000   100.00%",
        "  some     25     2.50%",
        "name    x",
    ]


def test_the_accounting_table_balances_line_by_line():
    value = {
        "samples": 10,
        "k": 3,
        "counts": {"scored": 7, "rejected/image_side": 1, "failed/not_an_image": 2},
        "threshold": 0.25,
        "network": "dfn",
        "at": 2,
        "state": "final",
        "faults": {"a.tar": ["empty_shard", ""]},
        "repeated_uids": 1,
    }
    lines = selection_table("run", value).splitlines()
    assert next(line.split("  ")[0] for line in lines) == "samples in the pool"
    assert any("rejected: image side" in line and " 1 " in line for line in lines)
    assert any("below the threshold" in line and " 4 " in line for line in lines)
    assert "threshold 0.250000 on dfn; 2 samples share it" in lines
    assert "bad shard a.tar: empty_shard" in lines
    assert "1 kept samples have the same uid as another kept sample" in lines


def test_notes_stand_in_the_end_table_and_below_the_last_line_of_progress():
    stream = io.StringIO()
    progress = Progress(100, stream=stream, clock=Clock())
    progress.resume(10, 10, {"scored": 10}, {"truncated_scored": 2})
    progress.add(5, 5, {"scored": 5}, notes={"truncated_scored": 1, "decoded_exactly": 1_000})
    progress.close()
    assert [" ".join(line.split()) for line in stream.getvalue().splitlines()[1:]] == [
        "decoded in exact mode, too damaged for fast mode 1,000",
        "truncated images scored anyway 3",
    ]
    value = {
        "counts": {"scored": 20}, "samples": 20, "k": 3, "threshold": None, "state": "final",
        "notes": {"truncated_scored": 12, "something_new": 1, "caption_cut": 0},
    }  # fmt: skip
    lines = [" ".join(line.split()) for line in selection_table("run", value).splitlines()]
    assert "truncated images scored anyway 12 60.00%" in lines
    assert "something new 1 5.00%" in lines
    assert not any("captions cut" in line for line in lines)
    assert "truncated images" not in selection_table("run", value | {"notes": {}})
