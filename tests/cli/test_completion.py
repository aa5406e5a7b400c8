"""Shell completion, by the scripts that `dfn-ray completion` prints."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dfn_ray.cli import run


@pytest.fixture
def completed(tmp_path, capsys):
    """Completes the last word of a command line in bash; returns its suggestions."""
    assert run(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    program = tmp_path / "bin" / "dfn-ray"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dfn_ray.cli "$@"\n')
    program.chmod(0o755)

    def complete(*words: str) -> list[str]:
        code = (
            f"source {script}; COMP_WORDS=(dfn-ray {' '.join(words)}); "
            "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
            '$(complete -p dfn-ray | grep -o "_[a-z_]*") dfn-ray; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
        command = ["bash", "--norc", "-c", code]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
        )
        return done.stdout.split()

    return complete


def test_bash_completes_verbs_options_and_choices(completed):
    assert completed("fi") == ["filter"]
    assert completed("pi") == ["pipeline"]
    assert completed("filter", "recipe.toml", "--dr") == ["--dry-run"]
    assert completed("submit", "ev") == ["evaluate"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell, capsys):
    assert run(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert f"_DFN_RAY_COMPLETE={shell}_complete" in said
    assert "dfn-ray" in said


def test_another_shell_is_2(capsys):
    assert run(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err.startswith("dfn-ray completion: ")
