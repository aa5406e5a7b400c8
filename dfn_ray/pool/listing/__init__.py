"""The shards of a pool from one listing: patterns, folders, names, remarks on skipped entries.

list_pool.py the listing; pool_uris.py, patterns.py, folders.py, shard_names.py remarks.py messages
about a listing; real_paths.py, nothing_found.py outputs.py places that must not be written to
listing_table.py a listing as a table
"""
