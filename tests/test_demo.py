"""The demo on its own data: the whole job, and its success at finding the damage."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from dfn_ray.demo.area_under_curve import area_under_curve
from dfn_ray.demo.filter_demo import demo_truth, run_demo


def test_auc_is_the_share_of_pairs_in_order_with_ties_counted_half():
    positive, negative = np.array([0.9, 0.5, 0.5]), np.array([0.1, 0.5])
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert area_under_curve(positive, negative) == pytest.approx(np.mean(pairs))


@pytest.mark.ray
@pytest.mark.slow
def test_the_demo_ends_with_a_proven_subset_a_judgement_and_a_picture(local_ray, tmp_path):
    said: list[str] = []
    run_demo(tmp_path / "demo", say=said.append)
    text = "\n".join(said)
    swapped = re.search(r"AUC, clean against swapped\s+([0-9.]+)", text)
    assert swapped
    assert float(swapped[1]) >= 0.90
    assert "verified: bytes equal to the pool's: 717 samples compared" in text
    assert set(demo_truth().values()) >= {
        "clean",
        "swapped",
        "junk",
        "foreign",
        "cut",
        "boilerplate",
    }
    with Image.open(tmp_path / "demo" / "demo.png") as picture:
        assert picture.width > 1000
        assert np.asarray(picture.convert("L")).std() > 10
