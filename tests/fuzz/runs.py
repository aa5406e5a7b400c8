"""Target: the files of a run. After any change, readers see the run as written or report it."""

from __future__ import annotations

import functools
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.errors import DamagedRunError, DfnRayError, InputError, VerificationError
from dfn_ray.filtering.filter_pool import select
from dfn_ray.filtering.subset.export_subset import export_uids
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.report.compare import compare_runs
from dfn_ray.run import open_run, scan_ledger, scan_subset
from dfn_ray.run.sealed_json import json_bytes
from tests.fuzz.case import Case, Target, require
from tests.fuzz.finished_runs import NAMES, BaseRun, base_run
from tests.fuzz.mutate import mutate
from tests.run.below_ray import filter_without_ray

_IN_THIS_RUN = "RUN"
"""Stands for the folder of a copy of a run, which differs between copies."""
Outcome = tuple[str, Any]
"""`same` or the name of an error, with the data read or the error's message."""


def make(rng: Random) -> Case:
    """A run with one file changed."""
    name = rng.choice(NAMES)
    base = base_run(name)
    # First the kind: there are more parts than anything else.
    kinds = sorted({_kind(file) for file in base.files})
    kind = rng.choice(kinds)
    file = rng.choice([file for file in base.files if _kind(file) == kind])
    data, how = rng.choice(_CHANGES)(rng, base, file)
    return case_of(name, file, data, how)


def case_of(name: str, file: str, data: bytes, how: str) -> Case:
    """The run of this name with one file of other content."""
    note = f"{name}: {file}: {how}"

    def check(folder: Path) -> Counter[str]:
        run = folder / "run"
        base = base_run(name)
        base.write(run)
        (run / file).write_bytes(data)
        return _compared(_due(name), _outcomes(base, run), note, _must_notice(base, file, data))

    return Case(
        valid=data == base_run(name).files[file], note=note, files={file: data}, check=check
    )


def _compared(
    due: dict[str, Outcome], found: dict[str, Outcome], note: str, must_notice: bool
) -> Counter[str]:
    for reader, (kind, what) in found.items():
        if (kind, what) == due[reader]:
            continue
        require(
            kind != "read", f"{reader} reads other values without a word", note, what, due[reader]
        )
        require(kind in _RIGHT or due[reader][0] == kind, f"{reader} ends in {kind}", note, what)
        require(_IN_THIS_RUN in what, f"{reader}: a message that names no file", note, what)
    noticed = found["verify"] != due["verify"] or due["verify"][0] != "read"
    require(noticed or not must_notice, "verify --full notices nothing", note)
    return Counter([found["verify"][0]])


_RIGHT = {DamagedRunError.__name__, VerificationError.__name__}


def _must_notice(base: BaseRun, file: str, data: bytes) -> bool:
    """True if the file's content changed, not only the layout of its JSON."""
    before = base.files[file]
    if not file.endswith(".json") or before == data:
        return before != data
    try:
        return json.loads(data) != json.loads(before)
    except (ValueError, RecursionError):
        return True


@functools.cache
def _due(name: str) -> dict[str, Outcome]:
    """The results of all readers on the run as written."""
    with tempfile.TemporaryDirectory(prefix="fuzz-run-") as folder:
        base_run(name).write(run := Path(folder) / "run")
        return _outcomes(base_run(name), run)


def _outcomes(base: BaseRun, run: Path) -> dict[str, Outcome]:
    # Nothing here has to survive a crash, and a busy disk takes its time.
    with patch.object(os, "fsync", lambda _: None):
        return {name: _outcome(read, base, run) for name, read in _READERS.items()}


def _outcome(read: Callable[[BaseRun, Path], Any], base: BaseRun, run: Path) -> Outcome:
    try:
        return "read", read(base, run)
    except DfnRayError as error:
        text = str(error).replace(str(run), _IN_THIS_RUN)
        is_other_format = isinstance(error, InputError) and "run format" in text
        return DamagedRunError.__name__ if is_other_format else type(error).__name__, text


def _opened(_: BaseRun, run: Path) -> Any:
    opened = open_run(str(run))
    return opened.description, opened.last and dict(opened.last.record)


def _listing(_: BaseRun, run: Path) -> Any:
    return open_run(str(run)).listing().to_pylist()


def _ledger(_: BaseRun, run: Path) -> Any:
    opened = open_run(str(run))
    ledger = scan_ledger(opened.store, opened.fingerprint)
    return ledger.names, ledger.counts, ledger.samples, ledger.faults, ledger.notes


def _subset(_: BaseRun, run: Path) -> Any:
    opened = open_run(str(run))
    columns = ["uid", "shard", "row", "image", "text", "metadata", "score_dfn"]
    return [(name, table.to_pylist()) for name, table in scan_subset(opened, columns)]


def _exported(_: BaseRun, run: Path) -> Any:
    export_uids(str(run), str(run.parent / "uids.npy"))
    return (run.parent / "uids.npy").read_bytes()


def _comparison(base: BaseRun, run: Path) -> Any:
    found = compare_runs([str(run), str(base.folder)], keep_fraction=0.3)
    return found.samples, found.filters[0].score_N.tolist(), found.overlap.tolist()


def _selected(base: BaseRun, run: Path) -> Any:
    value = select(base.recipe(run))
    lists = sorted(run.rglob("selections/*/subset_uids.npy"))
    return value, [path.read_bytes() for path in lists]


def _resumed(base: BaseRun, run: Path) -> Any:
    value = filter_without_ray(base.recipe(run), bounds=base.bounds)
    return {key: what for key, what in value.items() if key != "files"}, _rows(run)


def _rows(run: Path) -> Any:
    return sorted(
        (row["shard"], row["row"], row["image"], row["text"], row["score_dfn"])
        for _, rows in _subset(base_run(NAMES[0]), run)
        for row in rows
    )


_READERS: dict[str, Callable[[BaseRun, Path], Any]] = {
    "open_run": _opened,
    "the listing": _listing,
    "the ledger": _ledger,
    "the subset": _subset,
    "export": _exported,
    "compare": _comparison,
    "verify": lambda _, run: verify_run(str(run), full=True),
    "select": _selected,
    "resuming": _resumed,
}
"""Those that write come last."""


def _kind(file: str) -> str:
    """The kind of a file: its folder, or its name without a digest."""
    return file.partition("/")[0] if "/" in file else file.partition("-")[0]


def _mutated(rng: Random, base: BaseRun, file: str) -> tuple[bytes, str]:
    data = base.files[file]
    # Half of the damage is in what is parsed first: the head of a file, or the footer of Parquet.
    size = len(data)
    near = min(size, 600)
    region = rng.choice((None, None, (0, near), (size - near, size)))
    damage = mutate(rng, data, region)
    return damage.data, damage.note


def _swapped(rng: Random, base: BaseRun, file: str) -> tuple[bytes, str]:
    others = [name for name in base.files if name != file]
    alike = [name for name in others if _kind(name) == _kind(file)]
    name = rng.choice(alike if alike and rng.random() < 0.5 else others)
    return base.files[name], f"{name} in its place"


def _rewritten(rng: Random, base: BaseRun, file: str) -> tuple[bytes, str]:
    """Another valid file of the same format."""
    if file.endswith(".json"):
        return _other_json(rng, base.files[file])
    if file.endswith(".parquet"):
        return _other_parquet(rng, base.files[file])
    if file.endswith(".npy"):
        return _other_array(rng, base.files[file])
    lines = base.files[file].decode().splitlines(keepends=True)
    rng.shuffle(lines)
    return "".join(lines[rng.randrange(2) :]).encode(), "lines shuffled or left out"


def _other_json(rng: Random, data: bytes) -> tuple[bytes, str]:
    if rng.random() < 0.3:
        shape = rng.choice(_SHAPES)
        if isinstance(shape, dict) and rng.random() < 0.5:
            return json_bytes(shape), f"sealed JSON of another shape {shape!r}"
        return json.dumps(shape).encode(), f"JSON of another shape {shape!r}"
    value = json.loads(data)
    if rng.random() < 0.2:
        return json.dumps(value, sort_keys=True).encode(), "another layout of the same JSON"
    places = list(_places(value))
    inner, key = rng.choice(places)
    other = rng.choice((*_SHAPES, *_VALUES))
    note = f"JSON with {other!r} for {key!r}"
    if rng.random() < 0.3:
        del inner[key]
        note = f"JSON without {key!r}"
    else:
        inner[key] = other
    return json.dumps(value, indent=1).encode(), note


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


_SHAPES: tuple[Any, ...] = (
    {},
    [],
    None,
    "x",
    3,
    [[]],
    {"format": 1},
    {"format": 2},
    {"format": []},
    {"state": "final"},
)
_VALUES: tuple[Any, ...] = (
    True,
    -1,
    10**30,
    0.5,
    "",
    "final",
    "selected",
    float("nan"),
    {"a": 1},
    [1, 2],
)


def _other_parquet(rng: Random, data: bytes) -> tuple[bytes, str]:
    """The table from another writer, with a value changed, or rows changed."""
    table = pq.read_table(io.BytesIO(data))
    how = rng.choice(("value", "value", "value", "rows", "column", "metadata", "nothing"))
    note = f"rewritten, {how} changed"
    if how == "value" and table.num_rows:
        name = rng.choice(table.column_names)
        column = table.column_names.index(name)
        values = table[name].to_pylist()
        place = rng.randrange(len(values))
        values[place] = _other_value(rng, values[place])
        # A field that takes null, whatever the column's own says.
        table = table.set_column(column, name, pa.array(values).cast(table.schema.types[column]))
        note = f"rewritten, {name} {place} changed"
    elif how == "rows" and table.num_rows:
        table = (
            table.slice(1)
            if rng.random() < 0.5
            else table.take(pa.array(range(table.num_rows)[::-1]))
        )
    elif how == "column":
        table = table.drop_columns([rng.choice(table.column_names)])
    elif how == "metadata":
        table = table.replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue(), note


def _other_value(rng: Random, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return rng.choice(("x", None, (value or "") + "a"))
    return value + (b"x" if isinstance(value, bytes) else 1)


def _other_array(rng: Random, data: bytes) -> tuple[bytes, str]:
    array = np.load(io.BytesIO(data))
    other = rng.choice(
        (array[::-1], array[1:], array[:0], array.reshape(-1, 1), array["f0"], np.array("x"))
    )
    sink = io.BytesIO()
    np.save(sink, other)
    return sink.getvalue(), f"another array, {other.dtype} {other.shape}"


_CHANGES = (_mutated, _mutated, _mutated, _swapped, _rewritten, _rewritten)

TARGET = Target("run", 2, make)
