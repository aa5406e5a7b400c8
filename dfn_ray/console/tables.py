"""Tables, durations and sizes as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfn_ray.console.printable import printable_line
from dfn_ray.schema import Note

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
