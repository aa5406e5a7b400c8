"""`doctor --reference` names each wrong setting, against scores by open_clip itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from open_clip.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)

import dfn_ray
from dfn_ray.cli import run
from dfn_ray.testing.sample_pools import TarBuilder
from tests.network import layouts
from tests.network.layout_tokenizers import unigram_tokenizer
from tests.parity.conftest import golden, write_scores


@pytest.fixture
def doctor(parity_recipe, capsys):
    """Runs the doctor against a file; returns its exit code and its output as one line."""

    def ask(reference, *sets: str, samples: int = 256) -> tuple[int, str]:
        words = [word for setting in sets for word in ("--set", setting)]
        words += ["--samples", str(samples), "--reference", str(reference)]
        code = run(["doctor", str(parity_recipe), *words])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return ask


def test_scores_with_nothing_wrong_agree(doctor, published):
    code, said = doctor(published)
    assert code == 0
    assert "20 of up to 256 samples are in" in said
    assert "ok parity largest difference" in said
    assert "rank correlation 1.0000 over 20 samples" in said
    assert "CHANGE" not in said


def test_a_wrong_setting_of_a_siglip_is_named(doctor, samples, tmp_path):
    layouts.siglip(tmp_path / "siglip", {}, {}, unigram_tokenizer())
    model = f"local-dir:{tmp_path / 'siglip'}"
    scored = dfn_ray.load_network(model).score(
        [sample.image for sample in samples], [sample.caption for sample in samples]
    )
    reference = write_scores(tmp_path / "scores.parquet", samples, scored["score"])
    set_model = f"networks.0.model={model}"
    assert doctor(reference, set_model)[0] == 0
    code, said = doctor(reference, set_model, "networks.0.normalization=openai")
    assert code == 1
    assert 'CHANGE suspects networks.0.normalization = "half" closes the gap' in said


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("networks.0.quick_gelu=true", "networks.0.quick_gelu = false"),
        ("networks.0.resize_mode=squash", 'networks.0.resize_mode = "shortest"'),
        ("networks.0.interpolation=bilinear", 'networks.0.interpolation = "bicubic"'),
        ("networks.0.normalization=openai", 'networks.0.normalization = "half"'),
        ("decode.on_truncated=fail", 'decode.on_truncated = "score"'),
        ("networks.0.precision=bf16", 'networks.0.precision = "fp32"'),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_else(doctor, published, wrong, right):
    code, said = doctor(published, wrong)
    assert code == 1
    assert f"CHANGE suspects {right} closes the gap: largest difference" in said
    assert said.count("closes the gap") == 1


@pytest.mark.parametrize(
    ("setting", "as_open_clip_has_it"),
    [
        (
            "normalization=openai",
            {"image_mean": OPENAI_DATASET_MEAN, "image_std": OPENAI_DATASET_STD},
        ),
        ("normalization=imagenet", {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}),
        ("resize_mode=longest", {"image_resize_mode": "longest"}),
        ("quick_gelu=true", {"force_quick_gelu": True}),
    ],
)
def test_a_setting_of_the_recipe_is_what_open_clip_calls_so(
    doctor, samples, tmp_path, setting, as_open_clip_has_it
):
    scores = golden(samples, **as_open_clip_has_it)
    reference = write_scores(tmp_path / "scores.parquet", samples, scores)
    assert doctor(reference, f"networks.0.{setting}")[0] == 0


def test_a_prompt_of_the_reference_is_named_as_having_no_setting(doctor, samples, tmp_path):
    scores = golden(samples, prompt="a photo of {}")
    code, said = doctor(write_scores(tmp_path / "scores.parquet", samples, scores))
    assert code == 1
    assert 'captions inserted into "a photo of {}"' in said
    assert "recipes have no such setting) closes the gap" in said


def crop_of_transformers(image):
    """CLIPImageProcessor's: rounded down."""
    left, top = (image.width - 64) // 2, (image.height - 64) // 2
    return image.crop((left, top, left + 64, top + 64))


def test_another_rounding_of_the_crop_is_named_as_having_no_setting(doctor, samples, tmp_path):
    scores = golden(samples, crop=crop_of_transformers)
    reference = write_scores(tmp_path / "scores.parquet", samples, scores)
    code, said = doctor(reference)
    assert code == 1
    assert "CHANGE suspects crops rounded as transformers' (as the reference does; recipes" in said
    assert (
        "the open_clip_config.json of a folder has preprocess_cfg.crop_rounding) closes the" in said
    )
    assert said.count("closes the gap") == 1


@pytest.mark.slow
def test_it_is_named_beside_a_resize_without_which_nothing_is_cropped(doctor, samples, tmp_path):
    scores = golden(samples, crop=crop_of_transformers)
    reference = write_scores(tmp_path / "scores.parquet", samples, scores)
    code, said = doctor(reference, "networks.0.resize_mode=squash", samples=10)
    assert code == 1
    assert 'networks.0.resize_mode = "shortest" and crops rounded as transformers\'' in said


def test_a_wrong_setting_is_named_by_scores_that_were_stored_as_float16(doctor, samples, tmp_path):
    scores = golden(samples, image_resize_mode="squash").astype(np.float16)
    reference = write_scores(tmp_path / "scores.parquet", samples, scores)
    code, said = doctor(reference)
    assert code == 1
    assert "column clip_score (float16)" in said
    assert 'networks.0.resize_mode = "squash" closes the gap' in said
    assert doctor(reference, "networks.0.resize_mode=squash")[0] == 0


def test_a_difference_below_the_floor_of_float16_is_not_named(doctor, samples, published, tmp_path):
    off = 9e-4 * np.where(np.arange(len(samples)) % 2, 1, -1)
    scores = golden(samples) + off
    half = write_scores(tmp_path / "half.parquet", samples, scores.astype(np.float16))
    assert doctor(half, samples=8)[0] == 0
    full = write_scores(tmp_path / "full.parquet", samples, scores)
    code, said = doctor(full, samples=8)
    assert code == 1
    assert "no setting or pair of settings explains the difference" in said
    assert "closes the gap:" not in said


@pytest.mark.slow
def test_a_pair_of_faults_is_named_as_a_pair(doctor, published):
    faults = ("networks.0.quick_gelu=true", "networks.0.interpolation=bilinear")
    code, said = doctor(published, *faults, samples=10)
    assert code == 1
    assert "no single setting explains the difference; trying" in said
    pair = 'networks.0.quick_gelu = false and networks.0.interpolation = "bicubic"'
    assert f"CHANGE suspects {pair} close the gap: largest difference" in said


def test_parity_needs_no_ray(parity_recipe, published):
    code = (
        f"import sys; from dfn_ray.cli import run; code = run(['doctor', {str(parity_recipe)!r}, "
        f"'--reference', {str(published)!r}, '--samples', '4']); print(code, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert "4 of up to 4 samples" in done.stdout


@pytest.mark.parametrize(
    "score", ["mean", *(pytest.param(score, marks=pytest.mark.slow) for score in ("best", "first"))]
)
def test_several_captions_are_scored_as_filtering_scores_them(doctor, samples, tmp_path, score):
    others = [replace(s, caption=samples[n - 1].caption) for n, s in enumerate(samples)]
    tar = TarBuilder()
    for n, (one, other) in enumerate(zip(samples, others, strict=True)):
        captions = {"uid": one.uid, "captions": [one.caption, other.caption]}
        kind = "jpg" if one.is_truncated else "png"
        tar.sample(f"{n:03d}", image=one.image, metadata=captions, image_extension=kind)
    (tmp_path / "0.tar").write_bytes(tar.getvalue())
    both = np.stack([golden(samples), golden(others)])
    expected = {"mean": both.mean(axis=0), "best": both.max(axis=0), "first": both[0]}
    settings = (f"pool.uri={tmp_path}", "pool.caption=list", f"captions.score={score}")
    reference = write_scores(tmp_path / "right.parquet", samples, expected[score])
    assert doctor(reference, *settings)[0] == 0
    wrong = write_scores(tmp_path / "wrong.parquet", samples, both[1])
    assert doctor(wrong, *settings, samples=4)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", "0"], "--samples: need a number of samples >= 1, got 0"),
        (["--column", "text"], "has no floating-point column text; it has clip_score"),
        (["--set", "pool.uid=derive"], "contains none of the 20 uids read from the pool"),
    ],
)
def test_mistakes_are_2(parity_recipe, published, capsys, arguments, said):
    reference = ["--reference", str(published)]
    assert run(["doctor", str(parity_recipe), *reference, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_reference_goes_with_a_recipe_of_filtering_and_a_column_with_a_reference(
    parity_recipe, published, tmp_path, capsys
):
    command = ["doctor", "demo", "--reference", str(published), "--set", f"run_uri={tmp_path}"]
    assert run(command) == 2
    assert "needs a filtering recipe" in capsys.readouterr().err
    assert run(["doctor", str(parity_recipe), "--column", "score"]) == 2
    assert "--column: needs --reference, the file that contains" in capsys.readouterr().err
