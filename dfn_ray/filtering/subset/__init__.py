"""The bytes of a subset, its uid list, and its exports.

settle.py           makes subset/ hold exactly the selection
reshard.py          the subset that a uid list asks for; listed_rows.py in tasks
write_uid_list.py   the sorted uid list
export_subset.py    uid list and WebDataset tars for other trainers
"""
