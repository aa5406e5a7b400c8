"""Scoring of a pool: calibration, then all its shards, until every chunk is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from math import inf

import pyarrow as pa
from ray import ObjectRef
from ray.exceptions import RayError

from dfn_ray.config import Recipe
from dfn_ray.errors import (
    IncompleteRunError,
    NoProgressError,
    StorageAccessError,
    StorageError,
    last_line,
)
from dfn_ray.filtering import chain
from dfn_ray.filtering.chain import Committed, StreamLimits
from dfn_ray.filtering.scoring.bounds import EVERYTHING, NOTHING, Bounds
from dfn_ray.filtering.scoring.calibrate import bounds_from_scores, calibration_work
from dfn_ray.filtering.scoring.commit import Committer
from dfn_ray.filtering.scoring.scorer import Scorer, plan_inputs, start_scorer
from dfn_ray.filtering.scoring.scoring_job import ScoringJob, open_job
from dfn_ray.filtering.scoring.unread_shards import (
    all_changed,
    closing_cell,
    raise_for_unread,
    wait_before_round,
)
from dfn_ray.on_ray.capacity import (
    Requirement,
    missing_capacity,
    reporting_missing_capacity,
    scorer_requirement,
    scoring_requirements,
)
from dfn_ray.on_ray.cells import UnreadShard
from dfn_ray.on_ray.crashing_shards import find_crashing_shards
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.ray_metrics import run_label
from dfn_ray.on_ray.session import connect, put_networks
from dfn_ray.on_ray.work import Work
from dfn_ray.pool.error_limits import ErrorLimits
from dfn_ray.preparing.prepare import prepare
from dfn_ray.run import Ledger, Run, bounds_file
from dfn_ray.schema import SIZE_FIELDS, ShardFault, score_column


def score_pool(recipe: Recipe, *, keep_bytes: bool) -> tuple[Run, Ledger]:
    """Scores every sample of the recipe's pool that is not scored yet; returns run and ledger.

    `keep_bytes` also writes the image bytes of samples that may be kept, so that the pool is read
    once.

    Raises InputError before anything starts when pool, networks or run_uri are wrong,
    FingerprintError when `run_uri` contains another run, ErrorLimitExceededError when too much of
    the pool is bad, BudgetSpentError when the budget is spent, NoProgressError when nothing moves
    any more, IncompleteRunError when shards cannot be finished, StorageError when they cannot be
    reached, ShardChangedError when they are not the ones that were listed.
    """
    check_ray_reachable()
    job = open_job(recipe, keep_bytes=keep_bytes)
    try:
        if chain.remaining_work(job.shards, job.ledger):
            _check_spending(job)
            connect()
            with job.meter:
                _score_all(job, keep_bytes=keep_bytes)
        _check_error_limits(job, final=True)
    finally:
        job.progress.close()
        job.metrics.close()
    return job.run, job.ledger


def _score_all(job: ScoringJob, *, keep_bytes: bool) -> None:
    networks = put_networks(job.networks)
    bounds = _calibrate(job, networks) if keep_bytes else NOTHING
    _score_remaining(job, bounds, networks)


def _calibrate(job: ScoringJob, networks: ObjectRef) -> Bounds:
    """The bounds of this run: stored by an earlier attempt, else from calibration scores."""
    name = bounds_file(job.recipe.deciding_network)
    stored = job.run.read_json(name)
    if stored is not None:
        return _stored_bounds(stored)
    seed = job.run.description["pool"]["digest"]
    if job.recipe.select.threshold is None:
        left = partial(calibration_work, job.shards, job.recipe.calibration, job.ledger, seed)
        if work := left():
            job.progress.say(f"calibrating on {len(work)} shards")
        _run_round(job, left, EVERYTHING, networks)
    found = bounds_from_scores(job.run, job.recipe, job.shards, seed, job.ledger.names)
    bounds = _stored_bounds(job.run.create_json(name, {"lo": str(found.lo), "hi": str(found.hi)}))
    if -inf < bounds.lo < bounds.hi < inf:
        job.progress.say(f"threshold expected between {bounds.lo:.4f} and {bounds.hi:.4f}")
    return bounds


def _stored_bounds(value: Mapping[str, str]) -> Bounds:
    return Bounds(float(value["lo"]), float(value["hi"]))


def _score_remaining(job: ScoringJob, bounds: Bounds, networks: ObjectRef) -> None:
    """Scores all shards until they are complete; retries those whose processes died."""
    rounds = job.recipe.execution.rounds
    left = partial(chain.remaining_work, job.shards, job.ledger)
    for number in range(1, rounds + 1):
        work = left()
        if not work:
            return
        if all_changed(work, job.unread):
            break
        if number > 1:
            job.progress.say(
                f"{len(work)} shards are not finished; starting round {number} of {rounds}"
            )
            wait_before_round(
                number, [unread for item in work if (unread := job.unread.get(item.shard.uri))]
            )
        _run_round(job, left, bounds, networks)
    _finish_alone(job, bounds, networks)
    unreachable = [item for item in left() if item.shard.uri in job.unread]
    if job.recipe.execution.give_up_unreachable:
        _give_up_unreachable(job, unreachable, bounds)
    _check_error_limits(job)
    if job.unread:
        raise_for_unread(job.unread, shards=len(job.shards), rounds=rounds)


def _finish_alone(job: ScoringJob, bounds: Bounds, networks: ObjectRef) -> None:
    """Scores the shards that no round could finish, although they can be read, one at a time.

    First it closes those that kill the process that reads them. Raises IncompleteRunError, naming a
    shard, for what is left then, or the error that stopped it.
    """

    def left() -> list[Work]:
        work = chain.remaining_work(job.shards, job.ledger)
        return [item for item in work if item.shard.uri not in job.unread]

    if work := left():
        _give_up_crashing(job, work, bounds)
    if not (work := left()):
        return
    job.progress.say(f"{len(work)} shards are not finished; scoring them one at a time")
    _run_round(job, left, bounds, networks, alone=True)
    reason = "their processes died"
    try:
        _run_round(job, left, bounds, networks, alone=True, strict=True)
    except RayError as error:
        reason = last_line(error)
    if work := left():
        raise IncompleteRunError(
            f"{len(work)} shards could not be finished in {job.recipe.execution.rounds} rounds, "
            f"nor alone, {work[0].shard.uri} among them: {reason}. The others are committed. Run "
            "the same command again to resume, or remove these shards from the pool"
        )


def _run_round(
    job: ScoringJob,
    left: Callable[[], Sequence[Work]],
    bounds: Bounds,
    networks: ObjectRef,
    *,
    alone: bool = False,
    strict: bool = False,
) -> None:
    """Runs the stream over the work that is left, counts its commits, and waits for missing nodes.

    Errors of Ray, workers and storage end only this round, not the run; the work that is left is
    retried. A store that denies writes ends the run at once. `alone` scores one shard at a time;
    `strict` raises such errors.
    """
    needs = _requirements(job.recipe)
    moved_s = time.monotonic()
    while work := left():
        for item in work:
            job.unread.pop(item.shard.uri, None)
        try:
            committed = _scored_parts(job, work, bounds, networks, alone=alone, strict=strict)
            with closing(committed), reporting_missing_capacity(needs, job.progress.say):
                for outcome in committed:
                    moved_s = time.monotonic()
                    if outcome is None:
                        _check_spending(job)
                        continue
                    if isinstance(outcome, UnreadShard):
                        job.unread[outcome.shard] = outcome
                        job.progress.say(f"a shard could not be read: {outcome.message}")
                        continue
                    outcome.add_to(job.ledger, job.progress, job.metrics)
                    _check_error_limits(job)
                    _check_spending(job)
            return
        except NoProgressError as error:
            _check_spending(job)
            job.run.check_attempt()
            if not _has_stalled(job, needs, time.monotonic() - moved_s, error, strict=strict):
                continue
            return
        except (RayError, StorageError) as error:
            job.run.check_attempt()
            # A later round would be denied too.
            if strict or isinstance(error, StorageAccessError):
                raise
            job.progress.say(
                f"this round stopped: {last_line(error)}; the remaining work is retried"
            )
            return


def _has_stalled(
    job: ScoringJob,
    needs: Sequence[Requirement],
    waited_s: float,
    error: NoProgressError,
    *,
    strict: bool,
) -> bool:
    """True if a round without progress ends; False if it still waits, as for missing nodes.

    Raises NoProgressError if that ends the run.
    """
    lacking, execution = missing_capacity(needs), job.recipe.execution
    limit, limit_s = (
        ("stall_timeout_s", execution.stall_timeout_s)
        if lacking is None
        else ("no_progress_timeout_s", execution.no_progress_timeout_s)
    )
    if waited_s < limit_s:
        return False
    why = lacking or (
        "although the cluster has the nodes it needs; raise this limit if a chunk may take longer"
    )
    what = f"no progress for {waited_s:,.0f} s (execution.{limit}), {why}"
    if lacking is not None or strict:
        raise NoProgressError(
            f"{what}. Committed work is kept; check the cluster with `dfn-ray doctor`, then run "
            "the same command again to resume"
        ) from error
    job.progress.say(f"this round stopped: {what}; the remaining work is retried")
    return True


def _scored_parts(
    job: ScoringJob,
    work: Sequence[Work],
    bounds: Bounds,
    networks: ObjectRef,
    *,
    alone: bool,
    strict: bool,
) -> Generator[chain.Outcome, None, None]:
    """The parts of the work, each once it is stored, and the shards that could not be read."""
    preparation, inputs = plan_inputs(job.networks, job.recipe)
    execution = job.recipe.execution
    wait_s = min(execution.stall_timeout_s, execution.no_progress_timeout_s)
    make = partial(
        Scorer,
        inputs=inputs,
        scorers=job.recipe.scorers,
        deciding_network=job.recipe.deciding_network,
        bounds=bounds,
        captions=job.recipe.captions,
    )
    return chain.score_stream(
        work,
        job.recipe,
        prepare=partial(prepare, preparation=preparation),
        start=partial(start_scorer, make, networks, run_label(job.recipe.run_uri)),
        committer=_committer(job, bounds),
        limits=StreamLimits(timeout_s=job.meter.limited_wait(wait_s), alone=alone, strict=strict),
    )


def _requirements(recipe: Recipe) -> tuple[Requirement, ...]:
    """The capacity without which scoring cannot begin."""
    if recipe.decode.placement == "apart":
        return scoring_requirements(recipe.decode, recipe.scorers)
    return (scorer_requirement(recipe.scorers),)


def _committer(job: ScoringJob, bounds: Bounds) -> Committer:
    return Committer(job.run, bounds, job.recipe.deciding_network)


def _check_error_limits(job: ScoringJob, *, final: bool = False) -> None:
    """Raises ErrorLimitExceededError when more samples or shards are bad than allowed."""
    execution, ledger = job.recipe.execution, job.ledger
    limits = ErrorLimits(
        max_failed_fraction=execution.max_failed_fraction,
        max_bad_shard_fraction=execution.max_bad_shard_fraction,
        max_rejected_fraction=execution.max_rejected_fraction,
        section="execution.",
    )
    limits.check_shards(ledger.faults, len(job.shards))
    if final or sum(ledger.counts.values()) >= execution.limits_after_samples:
        limits.check_samples(ledger.counts)


def _check_spending(job: ScoringJob) -> None:
    """Raises BudgetSpentError when there is work left but the budget is spent."""
    if job.ledger.complete_shards < len(job.shards):
        job.meter.check(job.ledger.bytes_read / max(1, job.total_bytes))


def _give_up_crashing(job: ScoringJob, work: Sequence[Work], bounds: Bounds) -> None:
    """Closes the shards that kill the process that reads them, so that only they are lost."""
    left = {item.shard.uri: (item, job.recipe.pool) for item in work}
    suspects = {uri: item for uri, item in left.items() if uri not in job.unread}
    for uri, crash in find_crashing_shards(suspects, job.recipe.decode):
        if _close(job, uri, ShardFault.CRASHES_READER, crash.detail, bounds):
            job.progress.say(f"{uri}: given up, {crash.detail}")


def _give_up_unreachable(job: ScoringJob, work: Sequence[Work], bounds: Bounds) -> None:
    """Closes the shards that cannot be reached, but not changed ones."""
    for uri in [item.shard.uri for item in work]:
        unread = job.unread[uri]
        if unread.changed:
            continue
        if _close(job, uri, ShardFault.UNREACHABLE, unread.message, bounds):
            del job.unread[uri]
            job.progress.say(f"{uri}: given up, {unread.message}")


def _close(job: ScoringJob, shard: str, fault: ShardFault, detail: str, bounds: Bounds) -> bool:
    """Commits the end of a shard; False if chunks before its committed ones are absent."""
    scores = [pa.field(score_column(network.name), pa.float32()) for network in job.networks]
    cell = closing_cell(job.ledger, shard, fault, detail, pa.schema([*SIZE_FIELDS, *scores]))
    if cell is None:
        return False
    part = _committer(job, bounds).commit([cell])
    closed = Committed(part.name, part.chunks, dict(part.header.counts))
    closed.add_to(job.ledger, job.progress, job.metrics)
    return True
