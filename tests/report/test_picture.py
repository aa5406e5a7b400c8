"""The page of a run: what is drawn, and for which runs nothing can be."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dfn_ray.errors import InputError
from dfn_ray.filtering.filter_pool import materialize
from dfn_ray.report import draw_run
from dfn_ray.report.picture import _DROPPED, _KEPT
from dfn_ray.run import RunIdentity, RunKind, open_run, start_run
from tests.report.conftest import BOTH
from tests.run.below_ray import no_ray, recipe_of


def pixels(data: bytes) -> np.ndarray:
    """The picture as rows, columns, RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def count_of(colour: str, data: bytes) -> int:
    """Number of pixels of exactly this colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((pixels(data) == wanted).all(axis=2).sum())


def test_a_run_is_drawn_with_kept_and_dropped_pairs(made, tmp_path):
    draw_run(made("run").run_uri, tmp_path / "absent" / "run.png")
    data = (tmp_path / "absent" / "run.png").read_bytes()
    assert count_of(_KEPT, data) > 100
    assert count_of(_DROPPED, data) > 100


def test_known_kinds_are_drawn_in_colours_of_their_own(made, tmp_path):
    run = made("run").run_uri
    draw_run(run, tmp_path / "plain.png")
    draw_run(run, tmp_path / "kinds.png", truth={})
    plain, kinds = [(tmp_path / name).read_bytes() for name in ("plain.png", "kinds.png")]
    # Without a known kind the histogram is blue; with one, its first kind is drawn in green.
    assert count_of("#5b7fa6", plain) > 100
    assert count_of("#5b7fa6", kinds) == 0


def test_a_materialized_subset_is_drawn_by_the_scores_it_was_made_from(made, hundred, tmp_path):
    made("scored", networks=BOTH)
    other = recipe_of(tmp_path / "scored", hundred, 0.2, networks=BOTH, deciding="against")
    with no_ray():
        materialize(other, out_uri=str(tmp_path / "out"))
    draw_run(str(tmp_path / "out"), tmp_path / "run.png")
    assert count_of(_KEPT, (tmp_path / "run.png").read_bytes()) > 100


def test_a_run_without_a_selection_cannot_be_drawn(made, tmp_path):
    recipe = made("run")
    (tmp_path / "run" / "selection.json").unlink()
    with pytest.raises(InputError, match="has no selection with a threshold to draw"):
        draw_run(recipe.run_uri, tmp_path / "run.png")


def test_the_run_of_a_uid_list_has_no_scores_to_draw(made, tmp_path):
    opened = open_run(made("scored").run_uri)
    listed = start_run(
        str(tmp_path / "listed"),
        RunIdentity(kind=RunKind.LISTED, fingerprint={"uids": "u"}, listing=opened.listing()),
        recipe={"run_uri": str(tmp_path / "listed"), "pool": opened.recipe["pool"], "uids": "u"},
    )
    with pytest.raises(InputError, match="listed: has no scores"):
        draw_run(listed.uri, tmp_path / "run.png")
