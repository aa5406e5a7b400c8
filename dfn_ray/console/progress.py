"""Progress lines of a running verb, with rate and time left."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from dfn_ray.console.printable import printable
from dfn_ray.console.tables import duration, note_rows, table

RATE_WINDOW_S = 60.0
"""Rates are taken over this window, so that a slow start does not distort the time left for
hours."""
LINE_EVERY_S = 30.0
TERMINAL_EVERY_S = 0.5


class StatusLine:
    """Prints the current status: on a terminal one line in place, elsewhere a line every 30 s."""

    def __init__(
        self, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._last_print = clock()

    def offer(self, line: Callable[[], str]) -> None:
        """Prints the line if the interval since the last one has passed."""
        now = self._clock()
        if now - self._last_print >= (TERMINAL_EVERY_S if self._terminal else LINE_EVERY_S):
            self._last_print = now
            self.say(line())

    def say(self, text: str, *, stays: bool = False) -> None:
        """Prints text now; on a terminal the next line replaces it unless `stays`."""
        text = printable(text)
        if self._terminal:
            # A line that wraps would stay: only the row of the cursor is erased.
            shown = f"{text}\n" if stays else text[: _columns(self._stream) - 1]
            self._stream.write(f"\r\x1b[2K{shown}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def _columns(stream: TextIO) -> int:
    """The width of a terminal: COLUMNS, else its own, else 80."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and int(stated):
        return int(stated)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:  # no terminal of the system's
        return 80


class Progress:
    """Counts committed parts and prints samples, rate, share, time left and drops by reason."""

    def __init__(
        self,
        total_bytes: int,
        *,
        stage: str = "scoring",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = StatusLine(stream=stream, clock=clock)
        self._clock = clock
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._samples = 0
        self._counts: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._recent: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)])
        self._seen: dict[str, float] = {}
        self._start = clock()
        self._stage = stage

    def resume(
        self,
        samples: int,
        done_bytes: int,
        counts: Mapping[str, int],
        notes: Mapping[str, int] | None = None,
    ) -> None:
        """Starts from the totals of earlier attempts; rates count only this attempt."""
        self._samples, self._done_bytes = samples, done_bytes
        self._counts, self._notes = Counter(counts), Counter(notes or {})
        self._recent = deque([(self._clock(), samples, done_bytes)])

    def add(
        self,
        samples: int,
        done_bytes: int,
        counts: Mapping[str, int],
        *,
        notes: Mapping[str, int] | None = None,
        scorers: Iterable[str] = (),
    ) -> None:
        """Counts a committed part and its scorers, and prints a line if one is due."""
        self._samples += samples
        self._done_bytes += done_bytes
        self._counts.update(counts)
        self._notes.update(notes or {})
        now = self._clock()
        self._recent.append((now, self._samples, self._done_bytes))
        self._seen.update(dict.fromkeys(scorers, now))
        while now - self._recent[0][0] > RATE_WINDOW_S and len(self._recent) > 2:
            self._recent.popleft()
        self._status.offer(self.line)

    def line(self) -> str:
        """The state in one line."""
        then, samples, done_bytes = self._recent[0]
        seconds = max(self._clock() - then, 1e-9)
        rate = (self._samples - samples) / seconds
        byte_rate = (self._done_bytes - done_bytes) / seconds
        share = min(1.0, self._done_bytes / self._total_bytes) if self._total_bytes else 1.0
        left = max(0, self._total_bytes - self._done_bytes)
        left_s = left / byte_rate if byte_rate > 0 else None
        alive = sum(self._clock() - seen <= RATE_WINDOW_S for seen in self._seen.values())
        dropped = sum(count for name, count in self._counts.items() if "/" in name)
        worst = ", ".join(
            f"{name.partition('/')[2]} {count:,}"
            for name, count in self._counts.most_common()
            if "/" in name
        )
        parts = [
            f"{self._stage} {share:6.1%}",
            f"{self._samples:,} samples",
            f"{rate:,.0f}/s",
            f"{duration(left_s)} left",
            *([f"{alive} scorers"] if alive else []),
            f"{dropped:,} rejected or failed" + (f" ({worst})" if worst else ""),
        ]
        return " | ".join(parts)

    def say(self, text: str) -> None:
        """Prints text that stays: the start of a stage, a warning."""
        self._status.say(text, stays=True)

    def close(self) -> None:
        """Prints the final state, and below it one line per note."""
        self.say(f"{self.line()} | {duration(self._clock() - self._start)} in total")
        if self._notes:
            self.say(table(note_rows(self._notes)))


class TrainingProgress:
    """Prints the progress of a training run from the figures that its workers report."""

    def __init__(
        self,
        total_samples: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = StatusLine(stream=stream, clock=clock)
        self._clock, self._start = clock, clock()
        self._total = total_samples
        self._figures: Mapping[str, float] = {}

    def show(self, figures: Mapping[str, float]) -> None:
        """Stores the latest figures (`training.worker`), and prints a line if one is due."""
        self._figures = figures
        self._status.offer(self.line)

    def line(self) -> str:
        """The state in one line."""
        figures = self._figures
        if not figures:
            return "training | no step yet"
        seen, rate = figures["samples_seen"], figures["samples_per_s"]
        left_s = (self._total - seen) / rate if rate > 0 else None
        return " | ".join(
            [
                f"training {seen / self._total:6.1%}",
                f"{seen:,.0f} samples seen",
                f"{rate:,.0f}/s",
                f"{duration(left_s)} left",
                f"loss {figures['loss']:.3f}",
                f"{figures['data_wait']:.0%} waiting for data",
                f"{figures['workers']:.0f} workers",
            ]
        )

    def say(self, text: str) -> None:
        """Prints text that stays: a restart, a warning."""
        self._status.say(text, stays=True)

    def close(self) -> None:
        """Prints the final state."""
        self.say(f"{self.line()} | {duration(self._clock() - self._start)} in total")
