"""Filtering on Ray Data: score a pool, select exactly, write the subset, prove it.

filter_pool(recipe)     pool -> subset, in one pass over the pool; resumes
score / select / materialize    the same, apart
materialize_listed      the subset that a uid list asks for
export_uids / export_webdataset     a finished subset for other trainers
verify_run              every promise of a finished run, from storage
"""

from dfn_ray.filtering.export import export_uids, export_webdataset
from dfn_ray.filtering.filter_pool import filter_pool, materialize, score, select
from dfn_ray.filtering.listed import materialize_listed
from dfn_ray.filtering.verify import verify_run

__all__ = [
    "export_uids",
    "export_webdataset",
    "filter_pool",
    "materialize",
    "materialize_listed",
    "score",
    "select",
    "verify_run",
]
