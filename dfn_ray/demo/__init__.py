"""The demo: a real pool small enough to ship, and a filtering network trained for it.

    filter_demo.py       dfn-ray demo: the whole job on that pool, evaluated against known damage
    pipeline_demo.py     the recipe of `dfn-ray pipeline demo`
    area_under_curve.py  how well scores tell good pairs from damaged ones
    data/                pool, network, clean pairs and a held-out set; made by tools/demo_data

The package itself imports nothing.
"""
