"""The fuzzer's command: `python -m tests.fuzz --inputs 10000 --seed 1`.

`--only INDEX` runs one input of a seed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.report import Report
from tests.fuzz.targets import TARGETS, target_of
from tests.fuzz.worker import Plan, Result, results

SAY_EVERY_S = 60.0


def main() -> int:
    """Returns the exit code: 1 if an input failed."""
    asked = _arguments()
    warnings.simplefilter("ignore")
    logging.disable()
    out = asked.out or Path(tempfile.mkdtemp(prefix="fuzz-failures-"))
    plan = Plan(seed=asked.seed, out=out, target_of=target_of)
    indexes = [
        index
        for index in ([asked.only] if asked.only is not None else range(asked.inputs))
        if not asked.targets or target_of(index).name in asked.targets
    ]
    report, started = Report(), time.monotonic()
    said = started
    done = results(plan, indexes, asked.workers)
    while (result := _next(done)) is not None:
        report.add(result)
        if (now := time.monotonic()) - said > SAY_EVERY_S:
            said, left = now, (now - started) / report.inputs * (len(indexes) - report.inputs)
            _say(
                f"{report.inputs} of {len(indexes)}, {report.failures} failed; "
                f"{left / 60:.0f} min left"
            )
        if asked.only is not None:
            _say(f"{result.target}: {result.note!r}\n{result.failure or 'fine'}\n{result.detail}")
    for line in report.lines(asked.seed):
        _say(line)
    _say(
        f"{report.inputs} of {len(indexes)} inputs of seed {asked.seed} in "
        f"{time.monotonic() - started:.0f} s"
    )
    if report.failures:
        _say(f"{report.failures} failed; they are in {out}")
    return 1 if report.failures else 0


def _next(done: Iterator[Result]) -> Result | None:
    """The next result; None at the end, or after an interrupt."""
    try:
        return next(done, None)
    except KeyboardInterrupt:
        return None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="how many inputs (1000)")
    parser.add_argument("--seed", type=int, default=1, help="which inputs (1)")
    parser.add_argument("--only", type=int, metavar="INDEX", help="just this one of them")
    parser.add_argument(
        "--targets", nargs="+", metavar="NAME", choices=[target.name for target in TARGETS],
        help=f"just these kinds: {', '.join(target.name for target in TARGETS)}",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (CPUs)")
    parser.add_argument("--out", type=Path, help="where inputs that fail are written")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
