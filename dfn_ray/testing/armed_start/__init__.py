"""A folder for PYTHONPATH: Python processes that start with it have the bugs of `dfn_ray.testing.lethal`."""
