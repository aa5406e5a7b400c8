"""Verification of every promise of a finished run, from storage.

    verify.py               all checks in order, files and digests
    verify_parts.py         parts compared with their footers and the pool listing
    verify_subset.py        subset compared with the selection and the scores
    verify_selections.py    selections and their uid lists, compared with the scores
    verify_samples.py       kept samples, compared with the pool
    rescore.py              chunks scored again
    row_sums.py             two sets of rows compared in constant memory

The package itself imports nothing.
"""
