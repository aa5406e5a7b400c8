"""The pool as a stream of cells on Ray Data, for filtering, training and evaluation alike.

    datasets.py     read a pool as a Ray Dataset of cells; run a function on items in tasks
    killers.py      shards whose mere reading kills the process
    cells.py        a chunk as one row, which Ray cannot split
    prepare.py      rules.py, decoding, tokens: from samples to the networks' inputs, in CPU tasks
    statuses.py     marking and counting samples
    uid_lists.py    a sorted uid list that every process can search
      uid_files.py    which files are uid lists, and what the others are
    error_limits.py how many samples may fail and shards be bad
    ray_address.py  is there a Ray, before anything is written
    weights.py      fetch networks once, on the driver
    metrics.py      what Prometheus is told of a run
    classnames.py   class names and templates, by name, file or list
    fingerprint.py  what of a recipe changes embeddings

The package itself imports nothing, and cells and datasets no torch: a worker process that only moves bytes
starts in 1 s instead of 6 and takes 150 MB instead of 950.
"""
