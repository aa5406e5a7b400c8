"""Everything about Ray that the stages share: the session, cells, actor pools, failures.

    session.py                  connects to a cluster, or starts a local Ray
    datasets.py                 a pool as a Ray Dataset of cells
    cells.py                    a chunk as one row, which Ray cannot split
    work.py                     the rows of a shard that are left to read
    footers.py                  footers of the parts of a run, in tasks if there are many
    bundles.py                  resources and labels that a task or actor requires
    actor_pools.py              starts, failures and termination of the actors that run networks
    network_actor.py            such an actor: a stage with networks, built on its device
    nodes.py                    alive nodes, and tasks on a certain one
    answers.py                  answers of Ray's head and of actors, within a time limit
    capacity.py                 missing nodes that a run waits for
    repeating.py                calls a function at intervals beside a block of the driver
    tasks.py                    a function over items, one task each
    slices.py                   a function over slices of many items, one task each
    crashing_shards.py          shards that kill the process that reads them
    failures.py                 errors of tasks without Ray's wrapper
    ray_logs.py                 one line in the log for an error of dfn_ray in a task
    ray_metrics.py              counters and histograms, exported by Ray to Prometheus
    ray_address.py              checks that Ray can be reached, before anything is written
    uninterruptible_imports.py  imports in workers that Ray's interrupts cannot break

The modules that only move bytes (cells, datasets) load no torch: a worker process that imports only
these starts in 1 s instead of 6 and takes 150 MB instead of 950.
"""

from dfn_ray.on_ray.uninterruptible_imports import guard_workers

guard_workers()
