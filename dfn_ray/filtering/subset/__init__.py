"""The bytes of a subset, its uid list, and its exports.

    settle.py           makes subset/ contain exactly the selection
    uid_list_subset.py  the subset of a uid list
    listed_rows.py      the rows of a chunk that are on the list, in tasks
    write_uid_list.py   the sorted uid list
    export_subset.py    uid list and WebDataset tars for other trainers

The package itself imports nothing.
"""
