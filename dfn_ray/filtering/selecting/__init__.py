"""From scores to exactly the k best, in constant memory, without a GPU.

select_run.py       which rule, over how many samples, giving exactly what
exact_k.py          the k best of any number of scores
ranking.py          the order of scored rows, ties included
run_scores.py       the scores of a run, part by part
selection_table.py  the accounting, for people
"""
