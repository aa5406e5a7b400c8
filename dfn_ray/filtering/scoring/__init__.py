"""From the pool to committed parts: each sample's score, and the bytes that may be kept.

score_pool.py       calibrates, then takes wave after wave of shards until every chunk is committed
calibrate.py        bounds for the threshold, from the scores of a random sample; bounds.py
scorer.py           the networks on a device, as an actor
commit.py           commits a part: bytes first, scores last
unread_shards.py    shards that were not read to their end: waited for, given up, or named
spending.py         what the run has cost, and the stop at its budget
fingerprint.py      everything that changes scores
"""
