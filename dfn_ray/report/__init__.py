"""Pictures and tables of finished runs.

picture.py             a run on one page; gallery.py finds its example pairs
compare.py             several runs of one pool compared; subgroups.py, mean_ranks.py
comparison_report.py   that comparison as tables and picture
arms.py                models trained on different subsets
"""

from dfn_ray.report.picture import draw_run

__all__ = ["draw_run"]
