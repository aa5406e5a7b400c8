"""The progress of a run, and the checkpoint from which a group of workers resumes.

    generations/000002-0003.json          attempt 2 began generation 3: fences off earlier workers
    generations/000002-0003.start.json    the checkpoint from which it resumes, chosen afterwards
    generations/000002-0003.reached.json  samples its workers have seen, updated now and then

Before workers start, a *generation* begins, which fixes their checkpoint, so that the data skips
exactly the samples that the weights have seen. Workers commit under the name of their generation,
and commits count up to the checkpoint from which the next generation resumed: a worker that was
thought dead can still write, but nothing reads its files. Does not import torch, which planning
processes do not need.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dfn_ray.errors import DamagedRunError, RunTakenOverError
from dfn_ray.run import CHECKPOINTS, GENERATIONS, Run
from dfn_ray.training.data.seen import Seen
from dfn_ray.untrusted.json_text import MAX_OWN_DEPTH, parse_json

LOG = "log"
CHECKPOINT_NAME = re.compile(r"samples-\d+-\d+-\d+")
"""Names of checkpoints, see `checkpoint_name`."""
_GENERATION_NAME = re.compile(r"\d+-\d+")


@dataclass(frozen=True, kw_only=True)
class Position:
    """The progress of a run."""

    samples_seen: int = 0
    steps: int = 0
    seen: Seen = field(default_factory=Seen)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Failures in training so far, by `failed/reason`, and samples by note. A restart continues
    from these."""
    name: str | None = None
    """Name of the checkpoint; None before the first."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One start of a group of workers."""

    name: str
    """ATTEMPT-NUMBER, which sorts in the order of generations."""
    position: Position
    """The position from which it resumes."""
    repeats: int = 0
    """Samples beyond that position that earlier workers trained on, by their last report: these are
    trained on again."""

    @property
    def number(self) -> int:
        """Number of this start of workers in the run, from 1."""
        return _number(self.name)


def checkpoint_name(samples_seen: int, generation: Generation) -> str:
    """Returns the name of a checkpoint of a generation."""
    return f"samples-{samples_seen:012d}-{generation.name}"


def begin_generation(run: Run) -> Generation:
    """Fences off all earlier workers, then chooses the checkpoint from which the next ones resume.

    Raises RunTakenOverError if another driver has taken the run over.
    """
    name = _new_name(run)
    # Not earlier: until now, current workers may have committed, and removed older checkpoints.
    position = latest_position(run)
    generation = Generation(
        name=name,
        position=position,
        repeats=max(0, reached_samples(run) - position.samples_seen),
    )
    run.create_json(
        f"{GENERATIONS}/{name}.start.json",
        {"checkpoint": position.name, "repeats": generation.repeats},
    )
    return generation


def _new_name(run: Run) -> str:
    """The name of a generation that is now the last one, and that no other driver has begun."""
    number, token = generation_count(run), uuid.uuid4().hex
    while True:
        number += 1
        name = f"{run.attempt.number:06d}-{number:04d}"
        value = {"number": number, "token": token}
        if run.create_json(f"{GENERATIONS}/{name}.json", value) == value:
            return name


def current_generation(run: Run) -> Generation:
    """Returns the generation that began last."""
    name, start = next(_starts(run))
    return Generation(name=name, position=_position(run, start), repeats=start["repeats"])


def generation_count(run: Run) -> int:
    """Returns the number of times workers were started."""
    return max(map(_number, _names(run)), default=0)


def latest_position(run: Run) -> Position:
    """Returns the position of the last committed checkpoint; the beginning if there is none."""
    name, start = next(_starts(run), (None, None))
    if start is None:
        return Position()
    own = [marker for marker in _markers(run) if generation_of(marker) == name]
    return _read_position(run, own[-1]) if own else _position(run, start)


def reached_samples(run: Run) -> int:
    """Returns the samples that the last workers had trained on, by their last report."""
    name, _ = next(_starts(run), (None, None))
    value = run.read_json(f"{GENERATIONS}/{name}.reached.json") if name else None
    return value["samples_seen"] if value else 0


def record_reached(run: Run, generation: Generation, samples_seen: int) -> None:
    """Records the samples that these workers have trained on, to report what a restart repeats."""
    check_generation(run, generation)
    run.write_json(f"{GENERATIONS}/{generation.name}.reached.json", {"samples_seen": samples_seen})


def check_generation(run: Run, generation: Generation) -> None:
    """Raises RunTakenOverError if other workers have started since."""
    run.check_attempt()
    names = _names(run)
    if not names or names[-1] != generation.name:
        raise RunTakenOverError(
            f"{run.uri}: newer workers have resumed from the last checkpoint; these stop"
        )


def log_lines(run: Run) -> list[dict[str, Any]]:
    """Returns the log of all committed steps, in order. Raises DamagedRunError."""
    logs = [file.name.removesuffix(".jsonl") for file in run.store.list(LOG, suffix=".jsonl")]
    names = _committed_among(run, logs)
    return [line for name in names for line in _lines_of(run, f"{LOG}/{name}.jsonl")]


def _lines_of(run: Run, name: str) -> list[dict[str, Any]]:
    text = run.store.read(name)
    try:
        if text and not text.endswith(b"\n"):
            raise ValueError("its last line is incomplete")
        lines = [parse_json(line, max_depth=MAX_OWN_DEPTH) for line in text.decode().splitlines()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("one of its lines is not a JSON object")
        return lines
    except ValueError as error:
        raise DamagedRunError(
            f"{run.store.uri_of(name)}: is damaged: {error}. Restore it from a copy, or delete it: "
            "it is used only to draw the training curve"
        ) from None


def committed_names(run: Run) -> list[str]:
    """Returns the names of committed checkpoints, in order, without those of replaced workers."""
    return _committed_among(run, _markers(run))


def generation_of(checkpoint: str) -> str:
    """Returns the name of the generation that wrote a checkpoint."""
    return checkpoint.split("-", 2)[2]


def _markers(run: Run) -> list[str]:
    files = run.store.list(CHECKPOINTS, suffix=".json")
    return [
        file.name.removesuffix(".json")
        for file in files
        if CHECKPOINT_NAME.fullmatch(file.name[:-5])
    ]


def _committed_among(run: Run, names: list[str]) -> list[str]:
    """The names of checkpoints that are committed."""
    ends = _ends(run)
    return [
        name
        for name in names
        if CHECKPOINT_NAME.fullmatch(name)
        and _samples_of(name) <= ends.get(generation_of(name), -1)
    ]


def _ends(run: Run) -> dict[str, float]:
    """Samples up to which checkpoints count, by generation: where a later one resumed.

    For the last generation, this is its latest checkpoint.
    """
    ends: dict[str, float] = {}
    end: float = latest_position(run).samples_seen
    for name, start in _starts(run):
        ends[name] = end
        end = min(end, _samples_of(start["checkpoint"]))
    return ends


def _starts(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Generations whose workers may have started, the last one first, with their start records."""
    for file in reversed(run.store.list(GENERATIONS, suffix=".start.json")):
        name = file.name.removesuffix(".start.json")
        if not _GENERATION_NAME.fullmatch(name):
            continue
        value = run.read_json(f"{GENERATIONS}/{file.name}")
        if value is not None:
            yield name, value


def _names(run: Run) -> list[str]:
    """Names of all generations, in order."""
    stems = (
        file.name.removesuffix(".json") for file in run.store.list(GENERATIONS, suffix=".json")
    )
    return [stem for stem in stems if _GENERATION_NAME.fullmatch(stem)]


def _number(name: str) -> int:
    return int(name.partition("-")[2])


def _samples_of(checkpoint: str | None) -> float:
    return 0 if checkpoint is None else int(checkpoint.split("-")[1])


def _position(run: Run, start: Mapping[str, Any]) -> Position:
    name = start["checkpoint"]
    return Position() if name is None else _read_position(run, name)


def _read_position(run: Run, name: str) -> Position:
    value = run.read_json(f"{CHECKPOINTS}/{name}.json")
    if value is None:
        raise DamagedRunError(
            f"{run.store.uri_of(CHECKPOINTS)}/{name}.json: is missing; restore it from a copy"
        )
    return Position(
        samples_seen=value["samples_seen"],
        steps=value["steps"],
        seen=Seen.from_json(value["seen"]),
        counts=value.get("counts", {}),
        name=name,
    )
