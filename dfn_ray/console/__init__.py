"""Text for people: lines of progress, tables, durations and sizes.

progress.py     progress with rate and time left
tables.py       tables, durations, sizes
printable.py    text of strangers that cannot move the terminal's cursor
"""
