"""Proof of every promise of a finished run, from what is on storage.

verify.py               the accounting, scores, selection, subset and uid list
verify_selections.py    selections and their uid lists, compared with the scores
verify_samples.py       kept samples, compared with the pool
rescore.py              scores made once more
row_sums.py             two sets of rows compared in constant memory
"""
