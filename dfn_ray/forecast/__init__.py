"""How long filtering a pool takes, and how much it costs, from a pilot.

plan.py         dfn-ray plan: pilot, estimate, printout
pilot.py        a few shards read, decoded and scored, each alone
limits.py       the same below Ray, for benchmarks too
estimate.py     from the pilot to the whole pool, with its uncertainty
costs.py        hours and money at n scorers
"""
