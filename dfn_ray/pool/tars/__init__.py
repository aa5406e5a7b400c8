"""Tar shards: exact detection of damage, and members as samples.

tape.py the bytes of a tar, in order tar.py headers and members; tar_headers.py, tar_end.py,
sparse.py webdataset.py members by key as samples; pieces.py, by_header.py, closed_keys.py
"""
