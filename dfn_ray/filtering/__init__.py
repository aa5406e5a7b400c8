"""Filtering on Ray Data: score a pool, select exactly, write the subset, prove it.

    filter_pool.py      the verbs: filter_pool = score + select + materialize, and each apart
    preflight.py        what is refused before anything starts; --dry-run asks here too
    score_pool.py       calibrate, then wave after wave of shards until every chunk is committed
      stream.py           the Ray Data chains, on dfn_ray.flow; nothing else here names Ray's operators
      scorer.py           the networks on a device: actors
      commit.py           bytes first, scores last
      spending.py         what it costs, and stopping at the budget
      calibrate.py        bounds.py: which bytes need to travel
    select_run.py       selection.py: exactly the k best, from scores.py, in constant memory
    settle.py           make subset/ hold exactly the selection
    uid_list.py         the sorted uid list
    listed.py           the subset that a uid list asks for (keep_listed.py in tasks)
    export.py           for other trainers
    verify.py           every promise, from storage

The package itself imports nothing, and what runs in tasks (commit, settle, keep_listed, export)
no torch: a worker process that only commits starts in 1 s instead of 6 and takes 150 MB instead of 950.
"""
