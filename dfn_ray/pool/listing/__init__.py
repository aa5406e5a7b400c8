"""The shards of a pool, listed once: patterns, folders, names, and remarks on what was left out."""
