"""Printed text is valid in every encoding, and nothing in a pool controls the terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from dfn_ray.cli import run
from dfn_ray.console.printable import printable, printable_line
from dfn_ray.console.progress import StatusLine
from dfn_ray.console.tables import grid, table
from dfn_ray.testing.sample_pools import TarBuilder, photo

EVIL = "a\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202egnp.\u2028b\udcff"


@pytest.fixture
def pool(tmp_path):
    """A shard whose keys and captions hold control characters and letters from many scripts."""
    tar = TarBuilder()
    tar.sample("k\x1b[31mey\x9b", image=photo(0), caption="\x1b[2J猫 жук \u202eevil\x00")
    tar.sample("two\nlines", image=photo(1), caption="a\nb")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.tar").write_bytes(tar.getvalue())
    return tmp_path / "pool"


def test_controls_are_escaped_and_letters_of_all_scripts_stay():
    assert printable("naïve 猫 😀\n\tx") == "naïve 猫 😀\n\tx"
    assert printable_line("one\ntwo") == r"one\ntwo"
    shown = printable_line(EVIL)
    assert shown == r"a\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202egnp.\u2028b\udcff"
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_inspect_prints_in_every_encoding_and_sends_no_control_to_the_terminal(pool, encoding):
    command = [sys.executable, "-m", "dfn_ray.cli", "inspect", str(pool)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert r"k\x1b[31mey" in text
    lines = [line for line in text.splitlines() if line.startswith("example")]
    assert len(lines) == 2
    if encoding == "ascii":
        assert r"\u732b" in lines[0]


def test_errors_tables_and_progress_are_escaped(capsys, tmp_path):
    assert run(["verify", f"{tmp_path}/\x1b[31mrun"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[31mrun" in said
    assert "\x1b" not in table([("a\x1b", "b\x1b\n"), ("c", 1)])
    assert table([("a\nb", "c\nd")]).count("\n") == 0
    assert grid(("h",), [("x\x1b\ny",)], numbers=1).count("\n") == 1
    stream = io.StringIO()
    StatusLine(stream=stream).say("shard \x1b[2J\rfaked", stays=True)
    assert stream.getvalue() == "shard \\x1b[2J\\rfaked\n"
