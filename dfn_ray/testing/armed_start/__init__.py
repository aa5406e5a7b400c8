"""A folder for PYTHONPATH: Python processes started with it have the bugs of `testing.lethal`."""
