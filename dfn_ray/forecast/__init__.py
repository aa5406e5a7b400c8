"""Forecasts of the time and cost of filtering a pool, from a pilot run.

    plan.py         dfn-ray plan: pilot, estimate, printed tables
    pilot.py        a few shards read, decoded and scored, each step measured alone
    stage_rates.py  reading, decoding and scoring without Ray, also for benchmarks
    estimate.py     extrapolation from the pilot to the whole pool, with intervals
    costs.py        hours and money at n scorers

The package itself imports nothing.
"""
