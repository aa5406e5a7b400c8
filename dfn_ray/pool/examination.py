"""A second read of a shard in a fresh process, to find whether its content crashes readers.

The process imports this package but neither Ray nor torch; it may die without harm to the caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from dfn_ray.config import Pool
from dfn_ray.errors import DfnRayError, StorageError
from dfn_ray.pool.chunking import RowSelection
from dfn_ray.pool.open_chunks import open_chunks
from dfn_ray.pool.shard import Shard
from dfn_ray.schema import ShardFault

TIMEOUT_S = 7200.0
"""The default of how long a run waits for progress."""
_START = "from dfn_ray.pool.examination import main; main()"


@dataclass(frozen=True, kw_only=True)
class ReadOutcome:
    """Result of reading a shard to its end."""

    row: int = 0
    """Row that would have come next when reading failed or killed the process."""
    error: str = ""
    """Qualified name of the exception that reading raised; empty if none."""
    message: str = ""
    """First line of its message."""
    own: bool = False
    """True for an error that dfn_ray raises on purpose, such as a storage failure or a changed
    shard."""
    signal: int = 0
    """Number of the signal that ended the process; 0 if none."""


def child_environment() -> dict[str, str]:
    """Environment in which a fresh Python process imports what this one does."""
    paths = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    # Ray's runtime environments add folders to sys.path that are in no variable.
    return os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, sys.path)])}


def outcome_of(error: Exception, row: int) -> ReadOutcome:
    """The outcome of a read that raised this exception at `row`."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return ReadOutcome(
        row=row,
        error=f"{module}{kind.__qualname__}",
        message=(str(error).splitlines() or [""])[0][:500],
        own=isinstance(error, DfnRayError),
    )


def read_in_fresh_process(shard: Shard, pool: Pool, selection: RowSelection) -> ReadOutcome:
    """Reads a shard in a fresh process and returns the outcome.

    Raises StorageError if that process fails to start or report, or times out.
    """
    job = {
        "shard": asdict(shard),
        "pool": asdict(pool),
        "skip": sorted(selection.skip),
        "rows": None if selection.rows is None else sorted(selection.rows),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _START],
            input=json.dumps(job).encode(),
            capture_output=True,
            env=child_environment(),
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StorageError(
            f"{shard.uri}: a second read did not end within {TIMEOUT_S:,.0f} s"
        ) from error
    if done.returncode < 0:
        return ReadOutcome(row=_row_reached(done.stdout), signal=-done.returncode)
    if done.returncode:
        why = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise StorageError(f"{shard.uri}: a second read in a fresh process failed: {why}")
    return ReadOutcome(**json.loads(done.stdout.splitlines()[-1]))


def _row_reached(output: bytes) -> int:
    """The last row in the complete lines that `_read` wrote before the process died."""
    whole = output.rpartition(b"\n")[0]
    return max((int(line) for line in whole.split(b"\n") if line.isdigit()), default=0)


def main() -> None:
    """Reads the shard described on standard input, and prints the rows reached and the outcome."""
    job: dict[str, Any] = json.load(sys.stdin)
    fault = job["shard"]["fault"]
    shard = Shard(**job["shard"] | {"fault": ShardFault(fault) if fault else None})
    pool = Pool(**job["pool"] | {"uri": tuple(job["pool"]["uri"])})
    rows = None if job["rows"] is None else frozenset(job["rows"])
    outcome = _read(shard, pool, RowSelection(skip=frozenset(job["skip"]), rows=rows))
    sys.stdout.write(f"\n{json.dumps(asdict(outcome))}\n")


def _read(shard: Shard, pool: Pool, selection: RowSelection) -> ReadOutcome:
    row = 0
    try:
        for chunk in open_chunks(shard, pool, selection):
            after = chunk.next_row
            if chunk.first_row not in selection.skip:
                chunk.take_table(shard, pool, selection)
            row = after
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()  # buffered output is lost if the process dies
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  recorded in the outcome, whatever it is
        return outcome_of(error, row)
    return ReadOutcome(row=row)
