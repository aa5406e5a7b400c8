"""Work in a notebook: score pairs without a run, and read a finished run as tables.

    pair_scorer.py      a filtering network and the pairs at hand, without Ray
    finished_run.py     a run: its selection, scores and subset
    run_table.py        rows of a run as Arrow, pandas, Ray and torch read them
    exports.py          the exports of a run, by what the target's name asks for

The package itself imports nothing: `dfn_ray.NAME` loads what NAME needs.
"""
