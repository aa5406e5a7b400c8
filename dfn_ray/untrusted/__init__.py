"""Files written by strangers, made safe to parse: bounded depth and memory, no code run.

    json_text.py       JSON and TOML, nested no deeper than one constant
    parquet_files.py   Parquet footers, made harmless before Arrow parses them
    parquet_footer.py  the walk through such a footer, without Arrow
    regular_files.py   rejects pipes, sockets and devices, on which readers block

The package itself imports nothing.
"""
