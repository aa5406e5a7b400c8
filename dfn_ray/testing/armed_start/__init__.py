"""A folder for PYTHONPATH: Python processes started with it have the bugs of `testing.lethal`.

    sitecustomize.py  what Python imports at its start

The package itself is never imported.
"""
