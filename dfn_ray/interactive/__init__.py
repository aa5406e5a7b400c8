"""Work in a notebook: score pairs without a run, and read a finished run as tables.

    pair_scorer.py   scores of images and captions, without starting Ray
    run_reader.py    a run: its selection, scores and subset
    run_table.py     rows of a run for Arrow, pandas and Ray
    torch_rows.py    rows of a run for torch
    exports.py       the exports of a run

The package itself imports nothing: `dfn_ray.NAME` loads what NAME needs.
"""
