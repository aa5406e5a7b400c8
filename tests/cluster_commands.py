"""The `jobs/` commands in the cluster files, the README and the jobs' own docs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

IMAGE_FOLDER = "/opt/dfn_ray/"
"""Path of the checkout in the image of cluster/Dockerfile, used by commands inside Kubernetes."""

_COMMAND = re.compile(r"\bpython3? (?:/\S*/)?jobs/\w+\.py[^`'\"\n|&;#]*")


@dataclass(frozen=True)
class JobCommand:
    """`python jobs/JOB.py ARGUMENTS`, as written in `file` at `line`."""

    file: Path
    line: int
    job: str
    """The script, relative to the repository: `jobs/filter_pool.py`."""
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.file.relative_to(ROOT)}:{self.line}: "
            f"{shlex.join(('python', self.job, *self.arguments))}"
        )


def job_commands() -> list[JobCommand]:
    """Every such command, in order of files and lines, including those in comments."""
    files = [ROOT / "README.md", *sorted((ROOT / "jobs").glob("*.py"))]
    files += sorted(path for path in (ROOT / "cluster").rglob("*") if path.is_file())
    return [command for file in files for command in _commands_in(file)]


def _commands_in(file: Path) -> list[JobCommand]:
    found = []
    for number, line in enumerate(
        file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        for text in _COMMAND.findall(line):
            _, script, *arguments = shlex.split(text)
            job = script.removeprefix(IMAGE_FOLDER)
            found.append(JobCommand(file, number, job, tuple(arguments)))
    return found
