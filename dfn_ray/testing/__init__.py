"""Components for tests of dfn_ray and of what is built on it."""
