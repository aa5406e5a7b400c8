"""The command line, `dfn-ray VERB`."""

from dfn_ray.cli.main import main, run

__all__ = ["main", "run"]
