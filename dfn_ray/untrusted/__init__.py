"""Files of strangers, made safe to parse: bounded depth, bounded memory, no code run.

json_text.py        JSON and TOML, nested no deeper than one constant
parquet_files.py    Parquet footers, made harmless before Arrow parses them
parquet_footer.py   the walk through such a footer, without Arrow
regular_files.py    refuses pipes, sockets and devices, which make readers wait
"""
