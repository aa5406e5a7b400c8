"""From scores to exactly the k best, in constant memory, without a GPU.

    select_run.py       a rule applied to a run: the selection with its counts
    denominator.py      N of keep_fraction: the samples that count
    exact_k.py          the k best of any number of scores
    ranking.py          the order of scored rows, ties included
    run_scores.py       the scores of a run, part by part
    selection_table.py  the counts of a selection as a printed table

The package itself imports nothing.
"""
