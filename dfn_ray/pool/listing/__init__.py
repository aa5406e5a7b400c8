"""The shards of a pool from one listing: patterns, folders, names, remarks on skipped entries.

    list_pool.py        the listing
      pool_uris.py      the entries of pool.uri, in one spelling
      patterns.py       braces and globs in them
      folders.py        the folders that a walk enters, and those that it skips
      shard_names.py    the files that are shards, by their names
      real_paths.py     shards that are the same file, reached through links
      remarks.py        skipped entries, and shards that may be unintended
      nothing_found.py  the error for a pattern that matches no shard
    listing_table.py    a listing as a table
    outputs.py          places that must not be written to

The package itself imports nothing.
"""
