"""Chaos test of the pipeline: kill -9 of the driver in every stage of `dfn-ray pipeline demo`.

Run it with python -m tests.chaos.kill_pipeline UNDISTURBED OUT. UNDISTURBED is a finished
`dfn-ray pipeline demo --set run_uri=UNDISTURBED`. The same pipeline, with only its first
seed, is run into OUT and killed while the filtering network trains, while the pool is scored,
while a model trains and while it is evaluated, each time restarted with the same command. In the
end the filtering network, the
subset's uids and the model trained on the whole pool must equal the undisturbed ones bit for bit,
and no finished stage may have been repeated. (The subset's rows may be in other files, which
training then reads in another order.)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dfn_ray.console.tables import duration


def main() -> None:
    """Kills, resumes and compares; exits 1 if something differs."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("undisturbed", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    pipeline = given.out
    model = pipeline / "train" / "dfn" / "seed-0"
    moments: dict[str, Callable[[], bool]] = {
        "the filtering network trains": lambda: _has(pipeline / "dfn/checkpoints", "*.json"),
        "the pool is scored": (pipeline / "filter/run.json").exists,
        "a model trains": lambda: _has(model / "checkpoints", "*.json"),
        "a model is evaluated": lambda: _has(model / "network", "*.safetensors"),
    }
    began = time.monotonic()
    finished: dict[Path, int] = {}
    for name, reached in moments.items():
        driver = _start(pipeline)
        while not reached():
            if driver.poll() is not None:
                sys.exit(f"ended with {driver.returncode} before this could be killed: {name}")
            time.sleep(0.02)
        time.sleep(0.5)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        _say(f"killed while {name}, {duration(time.monotonic() - began)} after the start")
        _unchanged(finished)
        finished = {
            path: path.stat().st_mtime_ns for path in pipeline.rglob("network/*.safetensors")
        }
    if code := _start(pipeline).wait():
        sys.exit(f"ended with {code}")
    _unchanged(finished)
    for name in (
        "dfn/network/open_clip_model.safetensors",
        "filter/subset_uids.npy",
        "train/pool/seed-0/network/open_clip_model.safetensors",
    ):
        if (given.out / name).read_bytes() != (given.undisturbed / name).read_bytes():
            sys.exit(f"{name}: differs from the undisturbed run's")
        _say(f"{name}: as undisturbed")
    for folder in (given.out, given.undisturbed):
        _say(f"{folder}: trained on dfn {_figures(folder, 'dfn')}")
    _say(f"killed {len(moments)} times, nothing shows it; {duration(time.monotonic() - began)}")


def _start(pipeline: Path) -> subprocess.Popen[bytes]:
    command = ["pipeline", "demo", "--set", f"run_uri={pipeline}", "--set", "seeds=[0]"]
    return subprocess.Popen([sys.executable, "-m", "dfn_ray.cli", *command], start_new_session=True)


def _has(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and any(folder.glob(pattern))


def _unchanged(finished: dict[Path, int]) -> None:
    """Exits if a finished network has been written again."""
    for path, written in finished.items():
        if path.stat().st_mtime_ns != written:
            sys.exit(f"{path}: was finished, and done again")


def _figures(pipeline: Path, arm: str) -> dict[str, float]:
    metrics = json.loads((pipeline / "comparison.json").read_text())["metrics"]
    return {name: metric["arms"][arm]["by_seed"]["0"] for name, metric in metrics.items()}


def _say(text: str) -> None:
    sys.stderr.write(f"\n#### {text}\n")


if __name__ == "__main__":
    main()
