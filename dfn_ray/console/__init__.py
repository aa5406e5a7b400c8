"""Text for people: lines of progress, tables, durations and sizes.

    progress.py     status lines with rate and time left
    tables.py       tables, durations, sizes
    printable.py    escapes, so that untrusted text cannot control the terminal

The package itself imports nothing.
"""
