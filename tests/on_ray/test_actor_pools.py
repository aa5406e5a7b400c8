"""Pools whose actors cannot start, on a real Ray."""

from __future__ import annotations

import gc
import os
import signal
from functools import partial

import pytest
import ray
from ray.data import ActorPoolStrategy

from dfn_ray.config import Scorers
from dfn_ray.errors import ScorersFailedError
from dfn_ray.on_ray.actor_pools import TRIES, ActorSupervisor
from dfn_ray.on_ray.datasets import TASK_RETRIES, ignore_retry_deprecation, rows_of
from dfn_ray.on_ray.session import configure
from dfn_ray.testing.waiting import until

pytestmark = pytest.mark.ray


class Actor:
    """Returns its batches unchanged, if `start` lets it start."""

    def __init__(self, start, starts):
        with starts.supervised_start():
            start()

    def __call__(self, batch):
        return batch


def stream(start, starts, *, rows: int = 3):
    """The rows, passed through a pool of two actors with a GPU each, as the chains build it."""
    scorers = Scorers(gpus=1, max_size=2)
    configure(errored_blocks=0, no_progress_timeout_s=60)
    with ignore_retry_deprecation():
        done = ray.data.range(rows, override_num_blocks=rows).map_batches(
            Actor,
            fn_constructor_kwargs={"start": start, "starts": starts},
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=scorers.min_size, max_size=scorers.max_size),
            num_cpus=scorers.cpus,
            num_gpus=scorers.gpus,
            max_task_retries=TASK_RETRIES,
            ray_remote_args_fn=lambda: starts.next_actor_options(scorers),
        )
    return starts.kill_actors_after(rows_of(done))


def run(start) -> int:
    return len(list(stream(start, ActorSupervisor())))


def out_of_memory():
    raise RuntimeError("CUDA out of memory")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("start", "why"),
    [(out_of_memory, "RuntimeError: CUDA out of memory"), (killed, "its process died")],
)
@pytest.mark.slow
def test_a_fault_of_every_start_ends_the_run_and_says_so(local_ray, start, why):
    with pytest.raises(ScorersFailedError, match=f"no scorer could start.*: .*{why}"):
        run(start)


def fails_some_times(times: int, folder, start):
    """Fails by calling `start`, that many times over all processes."""
    if len(list(folder.iterdir())) < times:
        (folder / str(os.getpid())).touch()
        start()


def test_some_failed_starts_cost_nothing_but_time(local_ray, tmp_path):
    assert run(partial(fails_some_times, TRIES // 2, tmp_path, out_of_memory)) == 3


def starts_well():
    pass


def actors_of(starts: ActorSupervisor) -> list[ray.actor.ActorHandle]:
    """The alive actors of a pool and the record of their starts, by their names."""
    names = [name for name in ray.util.list_named_actors() if name.startswith(starts._pool)]
    return [ray.get_actor(name) for name in names]


def is_dead(actor) -> bool:
    try:
        ray.get(actor.__ray_ready__.remote())
    except ray.exceptions.RayActorError:
        return True
    return False


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_pool_ends_with_its_results_even_if_something_still_refers_to_its_actors(
    local_ray, is_stopped
):
    starts = ActorSupervisor()
    results = stream(starts_well, starts)
    next(results)
    actors = actors_of(starts)
    ids = {actor._actor_id for actor in actors}
    assert len(ids) >= 2
    # By type(), not isinstance(): that asks each object for its class, and some warn.
    held = [thing for thing in gc.get_objects() if type(thing) is ray.actor.ActorHandle]
    held = [handle for handle in held if handle._actor_id in ids]
    assert {handle._actor_id for handle in held} == ids
    if is_stopped:
        results.close()
    else:
        assert len(list(results)) == 2
    # Ray ends an actor some time after it was told to.
    until(lambda: all(map(is_dead, [*actors, starts._record])))
    assert not actors_of(starts)
    del held
