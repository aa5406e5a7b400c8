"""Verbs to try dfn_ray with: demo, inspect."""

from __future__ import annotations

from pathlib import Path

import click

from dfn_ray.cli.options import TARGET_URI, URI, takes_json
from dfn_ray.cli.output import Output
from dfn_ray.errors import InputError


@click.command(
    "demo",
    short_help="Run the whole filtering job on a small pool that ships with the package; half a "
    "minute on a laptop.",
)
@click.option(
    "--out",
    type=TARGET_URI,
    default="runs/demo",
    show_default=True,
    metavar="FOLDER",
    help="Folder on this machine for the run.",
)
def demo(out: str) -> None:
    """Filter a small pool that ships with the package, verify the subset, and draw the result.

    Half of the pool's captions are damaged. The printed table shows how many of them the filter
    dropped.
    """
    from dfn_ray.on_ray.ray_address import check_ray_reachable
    from dfn_ray.storage import is_local

    if not is_local(out):
        raise InputError(f"--out: need a folder on this machine, got {out}")
    check_ray_reachable()
    from dfn_ray.demo.filter_demo import run_demo

    run_demo(Path(out), say=Output().say)


@click.command("inspect", short_help="Show what a pool contains and what is broken in it.")
@click.argument("pool_uri", type=URI, nargs=-1, required=True)
@click.option(
    "--shards",
    type=int,
    default=8,
    show_default=True,
    help="Number of shards to inspect.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of [pool], e.g. caption=label, format=folder, image_column=photo; may be "
    "repeated.",
)
@takes_json
def inspect(
    pool_uri: tuple[str, ...], shards: int, settings: tuple[str, ...], output: Output
) -> None:
    """Show formats, sizes, faults and example samples of a pool.

    POOL_URI is a folder, a file or a pattern (quote it: 's3://bucket/*.tar'), or several of them.
    Reads the first chunk of some shards and decodes no image.
    """
    from dfn_ray.cli.documents import inspect_values
    from dfn_ray.config import Pool, recipe_from
    from dfn_ray.console.printable import printable_line
    from dfn_ray.pool import inspect_pool

    report = inspect_pool(recipe_from({"uri": list(pool_uri)}, settings, Pool), shards=shards)
    output.finish(inspect_values(report), "\n".join(map(printable_line, report.lines())))
