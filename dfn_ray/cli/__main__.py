"""`python -m dfn_ray.cli`: the command line where `dfn-ray` itself is not on the path."""

from dfn_ray.cli.main import main

main()
