"""Parquet shards: row groups and pages as samples, in bounded memory.

parquet_shard.py the chunks of a file columns.py the columns of image, caption, key, uid and
metadata row_groups.py rows, read in pieces; values.py, value_sizes.py pages.py page headers,
checked before Arrow allocates; thrift.py, footer.py, watched.py
"""
