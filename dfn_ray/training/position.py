"""How far a run has come, and the one decision from where a group of workers goes on.

    generations/000002-0003.json         attempt 2 has begun generation 3 of workers: it shuts out all before it
    generations/000002-0003.start.json   from which checkpoint it goes on; decided behind the file above
    generations/000002-0003.reached.json how far its workers are beyond their last checkpoint, now and then

Whenever workers start, a *generation* is decided first: by it the data skips exactly what the weights have seen. What
workers commit bears the name of their generation, and counts up to where the next one began: a worker that comes back
to life can write, but nobody looks there. Loads no torch: processes that only plan need none.
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
from dfn_ray.untrusted.json_text import MAX_OWN_DEPTH, parsed

LOG = "log"
CHECKPOINT_NAME = re.compile(r"samples-\d+-\d+-\d+")
"""Of checkpoints: see `checkpoint_name`."""
_GENERATION_NAME = re.compile(r"\d+-\d+")


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come."""

    samples_seen: int = 0
    steps: int = 0
    seen: Seen = field(default_factory=Seen)
    counts: Mapping[str, int] = field(default_factory=dict)
    """What failed while training up to here, by `failed/reason`, and samples by note. A restart counts from here."""
    name: str | None = None
    """Of the checkpoint; None before the first."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One start of a group of workers."""

    name: str
    """ATTEMPT-NUMBER, which sorts in the order of generations."""
    position: Position
    """Where it goes on."""
    repeats: int = 0
    """Samples that workers before it had trained on beyond that, as far as they told: they are trained on again."""

    @property
    def number(self) -> int:
        """The how many-th start of workers of the run it is, from 1."""
        return _number(self.name)


def checkpoint_name(samples_seen: int, generation: Generation) -> str:
    """What a checkpoint of a generation is called."""
    return f"samples-{samples_seen:012d}-{generation.name}"


def begin_generation(run: Run) -> Generation:
    """Shut out all workers before, and then decide from which checkpoint the next ones go on.

    Raises RunTakenOverError when another driver has taken the run.
    """
    name = _new_name(run)
    # Only now: a worker that found itself current may have committed, and removed older checkpoints, up to here.
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
    """The name of a generation that is now the last one, and that nobody else has begun."""
    number, token = generation_count(run), uuid.uuid4().hex
    while True:
        number += 1
        name = f"{run.attempt.number:06d}-{number:04d}"
        value = {"number": number, "token": token}
        if run.create_json(f"{GENERATIONS}/{name}.json", value) == value:
            return name


def current_generation(run: Run) -> Generation:
    """The generation that was begun last."""
    name, start = next(_starts(run))
    return Generation(name=name, position=_position(run, start), repeats=start["repeats"])


def generation_count(run: Run) -> int:
    """How often workers have been started."""
    return max(map(_number, _names(run)), default=0)


def latest_position(run: Run) -> Position:
    """Where the last committed checkpoint stands; the beginning when there is none."""
    name, start = next(_starts(run), (None, None))
    if start is None:
        return Position()
    own = [marker for marker in _markers(run) if generation_of(marker) == name]
    return _read_position(run, own[-1]) if own else _position(run, start)


def reached_samples(run: Run) -> int:
    """Samples that the workers before had trained on, as far as they told."""
    name, _ = next(_starts(run), (None, None))
    value = run.read_json(f"{GENERATIONS}/{name}.reached.json") if name else None
    return value["samples_seen"] if value else 0


def record_reached(run: Run, generation: Generation, samples_seen: int) -> None:
    """Leave a note of how far these workers are, for whoever must say what a restart repeats."""
    check_generation(run, generation)
    run.write_json(f"{GENERATIONS}/{generation.name}.reached.json", {"samples_seen": samples_seen})


def check_generation(run: Run, generation: Generation) -> None:
    """Raise RunTakenOverError when other workers have started since."""
    run.check_attempt()
    names = _names(run)
    if not names or names[-1] != generation.name:
        raise RunTakenOverError(
            f"{run.uri}: workers that started later go on from the last checkpoint; these stop"
        )


def log_lines(run: Run) -> list[dict[str, Any]]:
    """The log of all committed steps, in order. Raises DamagedRunError."""
    logs = [file.name.removesuffix(".jsonl") for file in run.store.list(LOG, suffix=".jsonl")]
    return [line for name in _counting(run, logs) for line in _lines_of(run, f"{LOG}/{name}.jsonl")]


def _lines_of(run: Run, name: str) -> list[dict[str, Any]]:
    text = run.store.read(name)
    try:
        if text and not text.endswith(b"\n"):
            raise ValueError("it ends within a line")
        lines = [parsed(line, max_depth=MAX_OWN_DEPTH) for line in text.decode().splitlines()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line of it is no JSON object")
        return lines
    except ValueError as error:
        raise DamagedRunError(
            f"{run.store.uri_of(name)}: is damaged: {error}; restore it from a copy, or delete it: only the curve has it"
        ) from None


def committed_names(run: Run) -> list[str]:
    """Names of the checkpoints that count, in order. Others are of workers that wrote on after they were replaced."""
    return _counting(run, _markers(run))


def generation_of(checkpoint: str) -> str:
    """The name of the generation that wrote a checkpoint."""
    return checkpoint.split("-", 2)[2]


def _markers(run: Run) -> list[str]:
    files = run.store.list(CHECKPOINTS, suffix=".json")
    return [
        file.name.removesuffix(".json")
        for file in files
        if CHECKPOINT_NAME.fullmatch(file.name[:-5])
    ]


def _counting(run: Run, names: list[str]) -> list[str]:
    """Those of the names of checkpoints that count."""
    ends = _ends(run)
    return [
        name
        for name in names
        if CHECKPOINT_NAME.fullmatch(name)
        and _samples_of(name) <= ends.get(generation_of(name), -1)
    ]


def _ends(run: Run) -> dict[str, float]:
    """By generation the samples up to which its checkpoints count: where a later one began, for the last its latest."""
    ends: dict[str, float] = {}
    end: float = latest_position(run).samples_seen
    for name, start in _starts(run):
        ends[name] = end
        end = min(end, _samples_of(start["checkpoint"]))
    return ends


def _starts(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """The generations that workers can have been started for, the last one first, each with where it goes on."""
    for file in reversed(run.store.list(GENERATIONS, suffix=".start.json")):
        name = file.name.removesuffix(".start.json")
        if not _GENERATION_NAME.fullmatch(name):
            continue
        value = run.read_json(f"{GENERATIONS}/{file.name}")
        if value is not None:
            yield name, value


def _names(run: Run) -> list[str]:
    """All generations, in order."""
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
        raise DamagedRunError(f"{run.store.uri_of(CHECKPOINTS)}/{name}.json: is absent; restore it")
    return Position(
        samples_seen=value["samples_seen"],
        steps=value["steps"],
        seen=Seen.from_json(value["seen"]),
        counts=value.get("counts", {}),
        name=name,
    )
