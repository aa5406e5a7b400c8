"""Readers that leave, signals, narrow and plain terminals, ASCII.

No traceback, and the right exit code.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfn_ray.testing.sample_pools import jpeg_bytes, write_tar_shard

DFN_RAY = [sys.executable, "-m", "dfn_ray.cli"]
STARTED_S = 60.0


@pytest.fixture
def pool(tmp_path) -> Path:
    samples = [
        {"key": f"{n}", "image": jpeg_bytes(), "caption": f"a grey caf\u00e9 {n}"} for n in range(3)
    ]
    write_tar_shard(str(tmp_path / "pool" / "0.tar"), samples)
    return tmp_path / "pool"


@pytest.mark.parametrize(
    "words", [["--help"], ["inspect", "{pool}"], ["inspect", "{pool}", "--json"]]
)
def test_a_reader_that_leaves_ends_a_verb_quietly_as_a_signal_would(pool, words):
    nobody, pipe = os.pipe()
    os.close(nobody)
    command = [*DFN_RAY, *(word.format(pool=pool) for word in words)]
    done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, "")


def test_head_gets_its_lines(pool):
    line = f"{' '.join(DFN_RAY)} inspect {pool} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    first, code = done.stdout.splitlines()
    assert first.startswith("shards ")
    assert code in ("0", "141")
    assert done.stderr == ""


def test_a_broken_pipe_of_anything_else_is_not_hidden(monkeypatch):
    def breaks(words: list[str]) -> int:
        raise BrokenPipeError("a socket")

    module = sys.modules["dfn_ray.cli.main"]  # whose name in the package is a function's
    monkeypatch.setattr(module, "_run_verb", breaks)
    monkeypatch.setattr(module, "_closed_pipes", list)
    with pytest.raises(BrokenPipeError, match="a socket"):
        module.run([])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_verb_in_one_sentence_and_exit_code_1(tmp_path, stop):
    code = (
        "import time; from dfn_ray.filtering.verifying import verify\n"
        "from dfn_ray.cli import main\n"
        "def wait(*_, **__):\n    print('begun', flush=True); time.sleep(600)\n"
        "verify.verify_run = wait; main(['verify', 'run'])"
    )
    # A test that runs in the background inherits that SIGINT is ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-c", code]
    verb = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert verb.stdout is not None
    assert verb.stdout.readline() == "begun\n"
    verb.send_signal(stop)
    _, said = verb.communicate(timeout=STARTED_S)
    assert verb.returncode == 1
    assert (
        said == "dfn-ray verify: stopped; committed work is kept, and the same command resumes it\n"
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"NO_COLOR": "1"},
        {"COLUMNS": "60"},
        {"TERM": "dumb"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "words", [["--help"], ["inspect", "{pool}"], ["inspect", "{pool}/caf\u00e9"]]
)
def test_verbs_print_in_every_environment(pool, environment, words):
    command = [*DFN_RAY, *(word.format(pool=pool) for word in words)]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)
    assert done.returncode == (2 if words[-1].endswith("\u00e9") else 0), done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    if "PYTHONIOENCODING" in environment or "LC_ALL" in environment:
        assert (done.stdout + done.stderr).isascii()


def test_a_terminal_of_60_columns_gets_a_help_that_fits(pool):
    """On a terminal the width is the terminal's own."""
    controller, terminal = pty.openpty()
    command = f"stty cols 60; exec {' '.join(DFN_RAY)} filter --help"
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    with subprocess.Popen(
        ["sh", "-c", command],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment,
    ) as verb:  # fmt: skip
        os.close(terminal)
        said = b""
        end = time.monotonic() + STARTED_S
        while time.monotonic() < end:
            try:
                piece = os.read(controller, 4096)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            said += piece
        assert verb.wait() == 0
    os.close(controller)
    lines = said.decode().splitlines()
    assert lines[0] == "Usage: dfn-ray filter [OPTIONS] RECIPE"
    assert max(map(len, lines)) <= 60
    assert b"\x1b" not in said
