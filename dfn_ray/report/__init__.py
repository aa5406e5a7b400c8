"""What a finished run looks like to people."""

from dfn_ray.report.picture import draw_run

__all__ = ["draw_run"]
