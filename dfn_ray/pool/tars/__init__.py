"""Tar shards: exact detection of damage, and members as samples.

    tape.py           the bytes of a tar, in order
    tar.py            headers and members
      tar_headers.py  one header, and the records of a PAX header
      tar_end.py      the end-of-archive mark, and the bytes after it
      sparse.py       members whose holes are not stored
    webdataset.py     members by key as samples
      pieces.py       the members that are parts of samples, with a bounded look-ahead
      by_header.py    samples known from headers, before their bytes are read
      closed_keys.py  keys of the samples already yielded, in bounded memory

The package itself imports nothing.
"""
