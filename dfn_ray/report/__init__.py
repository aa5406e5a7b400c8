"""Pictures and tables of finished runs.

    picture.py            a run on one page
    gallery.py            example pairs for that page
    compare.py            several runs of one pool compared
    subgroups.py          the subgroups of samples within which they are compared
    mean_ranks.py         ranks of scores, ties averaged
    comparison_report.py  that comparison as tables and picture
    arms.py               models trained on different subsets

The package itself imports only picture.py.
"""

from dfn_ray.report.picture import draw_run

__all__ = ["draw_run"]
