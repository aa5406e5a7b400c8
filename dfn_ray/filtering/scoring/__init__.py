"""From the pool to committed parts: each sample's score, and the bytes that may be kept.

    score_pool.py        calibrates, then scores all shards until all is committed
    scoring_job.py       a run opened for scoring, with networks, commits and budget
    calibrate.py         bounds for the threshold, from the scores of a random sample
    bounds.py            those bounds
    score_and_commit.py  the actor: from shards to committed parts, on one device
    scorer.py            the networks on the device
    commit.py            commits a part: bytes first, scores last
    unread_shards.py     shards that could not be read to their end: retried, given up, or reported
    spending.py          the cost of the run, and the stop at its budget
    fingerprint.py       everything that changes scores

The package itself imports nothing.
"""
