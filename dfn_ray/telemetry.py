"""Progress while a run works and the table at its end.

On a terminal one line that renews itself; elsewhere one line every 30 s, so that logs stay readable.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from dfn_ray.printing import printable, printable_line
from dfn_ray.schema import Note

RATE_WINDOW_S = 60.0
"""Rates are over this window, so that a slow start does not spoil the time left for hours."""
LINE_EVERY_S = 30.0
TERMINAL_EVERY_S = 0.5
NOTES = {
    Note.METADATA_REPLACED: "metadata holds values that JSON cannot, replaced",
    Note.TRUNCATED_SCORED: "scored although they end early",
    Note.DECODED_EXACTLY: "decoded exactly, too damaged for the fast way",
    Note.CAPTION_CUT: "captions cut to what the tokenizer looks at",
    Note.ZEROS_BEFORE_MEMBER: "places where zeros precede a member of a tar: tars joined in one file, or a hole",
    Note.BYTES_AFTER_END: "tars with bytes after their end, or with more zeros than pad one; these are not read",
    Note.SEVERAL_CAPTIONS: 'look like several captions, read as one; see pool.caption = "lines", "list"',
}
"""Notes as tables say them."""


class StatusLine:
    """Says how things stand: on a terminal one line that renews itself, elsewhere a line every 30 s."""

    def __init__(
        self, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._said = clock()

    def offer(self, line: Callable[[], str]) -> None:
        """Say the line when it is time for one."""
        now = self._clock()
        if now - self._said >= (TERMINAL_EVERY_S if self._terminal else LINE_EVERY_S):
            self._said = now
            self.say(line())

    def say(self, text: str, *, stays: bool = False) -> None:
        """Say something now; on a terminal the next line replaces it unless it stays."""
        text = printable(text)
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{text}" + ("\n" if stays else ""))
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


class Progress:
    """Counts what was committed and says so: samples, rate, share, time left, drops by reason."""

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
        """Start from what an earlier attempt committed; rates count only what is done from here."""
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
        """Count a committed part and who scored it, and say so when it is time."""
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
            f"{dropped:,} dropped" + (f" ({worst})" if worst else ""),
        ]
        return " | ".join(parts)

    def say(self, text: str) -> None:
        """Say something that stays: a stage begun, a warning."""
        self._status.say(text, stays=True)

    def close(self) -> None:
        """Leave the last state standing, and below it a line per note."""
        self.say(f"{self.line()} | {duration(self._clock() - self._start)} in all")
        if self._notes:
            self.say(table(note_rows(self._notes)))


class TrainingProgress:
    """Says how far a training run is, from the figures its workers report."""

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
        """Take the latest figures (`training.worker`), and say so when it is time."""
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
        """Say something that stays: a restart, a warning."""
        self._status.say(text, stays=True)

    def close(self) -> None:
        """Leave the last state standing."""
        self.say(f"{self.line()} | {duration(self._clock() - self._start)} in all")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `42 s`, `7 min`, `3 h 20 min`, `unknown`."""
    if seconds is None:
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"


def size(count: float) -> str:
    """Bytes as people say them, by powers of 1000: `812 B`, `4.2 MB`, `1.3 TB`."""
    units = ["PB", "TB", "GB", "MB", "KB", "B"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop()
    digits = 0 if count >= 99.95 or units[-1] == "B" else 1
    return f"{count:.{digits}f} {units[-1]}"


def table(rows: Sequence[tuple[str, int | str]], *, total: int | None = None) -> str:
    """Names and values in two columns, numbers aligned among themselves and also as a share of `total`."""
    wide = max((len(name) for name, _ in rows), default=0)
    far = max((len(f"{value:,}") for _, value in rows if isinstance(value, int)), default=0)
    lines = []
    for name, value in rows:
        if isinstance(value, str):
            shown = value
        else:
            share = f"  {value / total:8.2%}" if total else ""
            shown = f"{value:>{far},}{share}"
        lines.append(f"{printable_line(name):<{wide}}  {printable_line(shown)}")
    return "\n".join(lines)


def note_rows(notes: Mapping[str, int]) -> list[tuple[str, int | str]]:
    """A row of a table for each note: its sentence, and how many samples have it."""
    sentences: dict[str, str] = {note.value: sentence for note, sentence in NOTES.items()}
    return [
        (sentences.get(name, name.replace("_", " ")), count)
        for name, count in sorted(notes.items())
        if count
    ]


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """Columns under a header; those from `numbers` on are aligned to the right."""
    lines = [[printable_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < numbers else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def selection_table(run_uri: str, value: Mapping[str, Any]) -> str:
    """What became of the pool, as `selection.json` has it: the accounting that must balance."""
    counts = dict(value["counts"])
    samples, kept = value["samples"], value["k"]
    rows: list[tuple[str, int | str]] = [("samples in the pool", samples)]
    for name in sorted(counts, key=lambda name: (name.split("/")[0] != "rejected", -counts[name])):
        if "/" in name:
            rows.append((f"  {name.replace('/', ': ').replace('_', ' ')}", counts[name]))
    if "scored" in counts:
        rows += [
            ("  scored", counts["scored"]),
            ("    below the threshold", counts["scored"] - kept),
        ]
    rows.append(("    kept", kept))
    rows += note_rows(value.get("notes", {}))
    lines = [table(rows, total=samples)]
    if value["threshold"] is not None:
        ties = f"; {value['at']:,} samples share it" if value["at"] > 1 else ""
        lines.append(f"threshold {value['threshold']:.6f} on {value['network']}{ties}")
    if (asked := value.get("asked") or 0) > kept:
        lines.append(
            f"warning: {asked:,} were asked for, only {kept:,} have a score: all of them are kept"
        )
    if "not_found" in value:
        lines.append(f"{value['listed']:,} uids listed, {value['not_found']:,} not in the pool")
    for shard, (fault, detail) in list(value.get("faults", {}).items())[:10]:
        why = f"{fault}{f' ({detail})' if detail else ''}"
        lines.append(printable_line(f"bad shard {shard}: {why}"))
    if value.get("repeated_uids"):
        lines.append(f"{value['repeated_uids']:,} kept samples repeat another one's uid")
    lines.append(
        f"subset: {run_uri}/subset" if value["state"] == "final" else f"selection: {run_uri}"
    )
    return "\n".join(lines)
