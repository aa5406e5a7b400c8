"""Uids of samples: two uint64 each, DataComp's sorted lists of them, and derived uids.

    records.py      32 hex digits <-> two uint64, the record of DataComp's subset files
    derived.py      the uid of a sample whose pool provides none
    file_layout.py  the layout of a file of records
    lookup.py       a sorted list on storage, searched by every process that needs it

The package itself imports nothing.
"""
