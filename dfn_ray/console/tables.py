"""Tables, durations and sizes as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfn_ray.console.printable import printable_line
from dfn_ray.schema import Note

NOTES = {
    Note.METADATA_REPLACED: "metadata with values that JSON cannot express, replaced",
    Note.TRUNCATED_SCORED: "truncated images scored anyway",
    Note.DECODED_EXACTLY: "decoded in exact mode, too damaged for fast mode",
    Note.CAPTION_CUT: "captions cut to the length that the tokenizer reads",
    Note.ZEROS_BEFORE_MEMBER: (
        "tar members preceded by zeros (concatenated tars, or a zeroed block in the file)"
    ),
    Note.BYTES_AFTER_END: "tars with bytes, or excess zeros, after their end, which are not read",
    Note.SEVERAL_CAPTIONS: (
        'captions that look like several captions but are read as one; see pool.caption = "lines" '
        'and "list"'
    ),
}
"""Text of each note in tables."""


def duration(seconds: float | None) -> str:
    """Seconds as readable text: `42 s`, `7 min`, `3 h 20 min`, `unknown time`."""
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
    """Bytes as readable text, in powers of 1000: `812 B`, `4.2 MB`, `1.3 TB`."""
    units = ["PB", "TB", "GB", "MB", "KB", "B"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop()
    digits = 0 if count >= 99.95 or units[-1] == "B" else 1
    return f"{count:.{digits}f} {units[-1]}"


def table(rows: Sequence[tuple[str, int | str]], *, total: int | None = None) -> str:
    """Names and values in two columns, numbers aligned and followed by their share of `total`."""
    name_width = max((len(name) for name, _ in rows), default=0)
    number_width = max(
        (len(f"{value:,}") for _, value in rows if isinstance(value, int)), default=0
    )
    lines = []
    for name, value in rows:
        if isinstance(value, str):
            shown = value
        else:
            share = f"  {value / total:8.2%}" if total else ""
            shown = f"{value:>{number_width},}{share}"
        lines.append(f"{printable_line(name):<{name_width}}  {printable_line(shown)}")
    return "\n".join(lines)


def note_rows(notes: Mapping[str, int]) -> list[tuple[str, int | str]]:
    """A table row for each note: its text and its number of samples."""
    texts: dict[str, str] = {note.value: text for note, text in NOTES.items()}
    return [
        (texts.get(name, name.replace("_", " ")), count)
        for name, count in sorted(notes.items())
        if count
    ]


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """Columns under a header; those from index `numbers` on are right-aligned."""
    lines = [[printable_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < numbers else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
