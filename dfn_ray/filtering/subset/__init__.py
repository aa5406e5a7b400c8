"""The bytes of a subset, its uid list, and its exports.

settle.py           makes subset/ contain exactly the selection
reshard.py          the subset of a uid list; listed_rows.py in tasks
write_uid_list.py   the sorted uid list
export_subset.py    uid list and WebDataset tars for other trainers
"""
