"""Verbs that look at finished runs: compare."""

from __future__ import annotations

import click

from dfn_ray.cli.documents import comparison_values
from dfn_ray.cli.options import TARGET_URI, URI, takes_json
from dfn_ray.cli.output import Output


@click.command(
    "compare", short_help="Compare filters of one pool: overlap, rank correlation, keep rates."
)
@click.argument("run_uris", type=URI, nargs=-1, required=True, metavar="RUN_URI...")
@click.option(
    "--keep-fraction",
    type=float,
    help="Fraction of the samples that each filter keeps for the comparison.  [default: that of "
    "the first run]",
)
@click.option(
    "--groups",
    type=URI,
    metavar="URI",
    help="Parquet file with a column uid and a column of subgroups, whose keep rates are compared.",
)
@click.option("--picture", type=TARGET_URI, metavar="URI", help="PNG file to draw.")
@takes_json
def compare(
    run_uris: tuple[str, ...],
    keep_fraction: float | None,
    groups: str | None,
    picture: str | None,
    output: Output,
) -> None:
    """Compare two or more filters of one pool, sample by sample.

    RUN_URI is a run of 'dfn-ray filter', 'dfn-ray score' or 'dfn-ray pipeline'.
    """
    from dfn_ray.report.compare import compare_runs
    from dfn_ray.report.comparison_report import comparison_lines, draw_comparison
    from dfn_ray.storage import Store

    found = compare_runs(run_uris, keep_fraction=keep_fraction, groups_uri=groups)
    if picture is not None:
        folder, _, name = picture.rpartition("/")
        Store(folder or ".").write(name, draw_comparison(found))
    output.finish(comparison_values(found), comparison_lines(found))
