"""A verb over a recipe as a job of a Ray cluster.

Only the recipe's file is sent, or with `working_dir` all of that folder; otherwise dfn_ray must be
installed on the cluster, in its image. No environment variable of this machine is sent: credentials
for storage are the cluster's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from dfn_ray.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Job:
    """A verb over a recipe, to run on a cluster. Raises RecipeError for what cannot work there."""

    verb: str
    recipe: str
    """A file on this machine, or what the cluster finds by itself: a URI, `demo`."""
    run_uri: str
    """Of that recipe."""
    overrides: tuple[str, ...] = ()
    working_dir: str | None = None
    """Folder to send instead of the recipe alone, without what `.gitignore` and `.rayignore` name;
    it contains the recipe."""

    def __post_init__(self) -> None:
        if "://" not in self.run_uri and not os.path.isabs(self.run_uri):
            raise RecipeError(
                [
                    f"run_uri: {self.run_uri} is relative, so it would be in the job's working "
                    "directory, which Ray deletes; need a URI, or an absolute path that exists on "
                    "every node of the cluster"
                ]
            )
        if self.working_dir is not None and self._is_sent:
            self._recipe_in_job()

    @property
    def entrypoint(self) -> str:
        """The command that the cluster runs."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        command = ["python", "-m", "dfn_ray.cli", self.verb, self._recipe_in_job(), *sets]
        return shlex.join(command)

    @property
    def excludes(self) -> list[str]:
        """Patterns of files not to send, as in a .gitignore.

        All files but the recipe, or none where a folder was named.
        """
        if self.working_dir is not None or not self._is_sent:
            return []
        name = re.sub(r"([\\*?\[\]])", r"\\\1", Path(self.recipe).name)
        return ["*", "!.", f"!/{name}"]

    @property
    def folder(self) -> str | None:
        """The folder that is sent, apart from `excludes`."""
        if self.working_dir is not None:
            return str(Path(self.working_dir).resolve())
        return str(Path(self.recipe).resolve().parent) if self._is_sent else None

    @property
    def run_digest(self) -> str:
        """Stands for `run_uri` in the ids of its jobs."""
        return hashlib.sha256(self.run_uri.rstrip("/").encode()).hexdigest()[:10]

    def new_id(self) -> str:
        """A readable id for submitting the job now: verb, run and time."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.run_uri.rstrip("/").rpartition("/")[2])
        return f"{self.verb}-{name}-{self.run_digest}-{time.strftime('%Y%m%d-%H%M%S')}"

    @property
    def _is_sent(self) -> bool:
        return "://" not in self.recipe and Path(self.recipe).exists()

    def _recipe_in_job(self) -> str:
        """The recipe as the job finds it."""
        if not self._is_sent:
            return self.recipe
        path, folder = Path(self.recipe).resolve(), self.folder
        assert folder is not None
        if not path.is_relative_to(folder):
            raise RecipeError(
                [
                    f"{path}: is not in --working-dir {folder}, and only that folder is sent to "
                    "the cluster; move the recipe into it"
                ]
            )
        return str(path.relative_to(folder))


def command_line(job: Job, address: str, job_id: str) -> str:
    """The `ray job submit` that submits the same job by hand."""
    words = ["ray", "job", "submit", "--address", address, "--submission-id", job_id]
    if job.folder is not None:
        words += ["--working-dir", job.folder]
    if job.excludes:
        words += ["--runtime-env-json", json.dumps({"excludes": job.excludes})]
    return f"{shlex.join(words)} -- {job.entrypoint}"
