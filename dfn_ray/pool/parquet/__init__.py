"""Parquet shards: row groups and pages as samples, in bounded memory.

    parquet_shard.py  the chunks of a file
    footer.py         its footer, checked against the file
    columns.py        the columns of image, caption, key, uid and metadata
    row_groups.py     rows, read in pieces
    watched.py        the file through which Arrow reads
      pages.py        page headers, checked before Arrow allocates
      thrift.py       these headers, decoded
    values.py         Arrow's values as Python's
      arrow_types.py  types by the kind of their values
      value_sizes.py  sizes of values, before they are converted

The package itself imports nothing.
"""
