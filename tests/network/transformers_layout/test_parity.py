"""Networks saved by transformers have its embeddings and scores; wrong settings change them."""

from __future__ import annotations

import json

import pytest

from dfn_ray.network.packed import pack_network
from tests.network import layout_tokenizers, layouts
from tests.network.conftest import spec
from tests.network.layouts import by_dfn_ray, by_transformers, difference

BOUND = 1e-5
TANH = {"hidden_act": "gelu_pytorch_tanh"}
GELU = {"hidden_act": "gelu"}

CLIPS = {
    "quick_gelu, patch 16": ({}, {}, 24),
    "gelu, patch 14, odd size": ({**GELU}, {**GELU, "patch_size": 14, "image_size": 70}, 40),
    "patch 32, legacy end": ({"eos_token_id": 2}, {"patch_size": 32, "image_size": 96}, 16),
    "large eps, uneven widths": (
        {**GELU, "layer_norm_eps": 1e-3, "intermediate_size": 101},
        {**GELU, "layer_norm_eps": 1e-3, "intermediate_size": 67, "patch_size": 14,
            "image_size": 100},
        48,
    ),
    "tanh": ({**TANH}, {**TANH}, 24),
}  # fmt: skip


@pytest.mark.parametrize("shape", CLIPS.values(), ids=CLIPS)
def test_a_clip_gives_transformers_embeddings_and_scores(tmp_path, shape):
    text, vision, dim = shape
    layouts.clip(tmp_path, text, vision, dim=dim)
    assert difference(by_dfn_ray(tmp_path), by_transformers(tmp_path)) < BOUND


SIGLIPS = {
    "sentencepiece": (layout_tokenizers.siglip_tokenizer, {}, {}),
    "tokenizer.json, patch 14": (
        lambda _: layout_tokenizers.unigram_tokenizer(),
        {"layer_norm_eps": 1e-4},
        {"patch_size": 14, "image_size": 100, "layer_norm_eps": 1e-4},
    ),
    "gelu": (layout_tokenizers.siglip_tokenizer, {**GELU}, {**GELU, "image_size": 48}),
    "siglip 2": (lambda _: layout_tokenizers.gemma_tokenizer(), {}, {}),
    "siglip 2, padded left, patch 32": (
        lambda _: layout_tokenizers.gemma_tokenizer("left"),
        {},
        {"patch_size": 32, "image_size": 96},
    ),
}


@pytest.mark.parametrize("shape", SIGLIPS.values(), ids=SIGLIPS)
def test_a_siglip_gives_transformers_embeddings_and_scores(tmp_path, shape):
    tokenizer, text, vision = shape
    layouts.siglip(tmp_path, text, vision, tokenizer(tmp_path))
    assert difference(by_dfn_ray(tmp_path), by_transformers(tmp_path)) < BOUND


def edited(folder, **changes):
    """The config of a saved network with different values in both towers."""
    values = json.loads((folder / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        values[tower].update(changes)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_wrong_activation_eps_or_crop_exceeds_the_bound_ten_times(tmp_path):
    layouts.clip(tmp_path, {**GELU}, {**GELU, "image_size": 224, "patch_size": 32})
    right = by_transformers(tmp_path)
    packed = pack_network(spec(tmp_path))
    assert difference(by_dfn_ray(packed), right) < BOUND
    object.__setattr__(packed.transform, "crop_rounding", "half_even")
    assert difference(by_dfn_ray(packed), right) > 10 * BOUND
    for wrong in ({"hidden_act": "quick_gelu"}, {**TANH}, {"layer_norm_eps": 1e-3}):
        edited(tmp_path, **{"hidden_act": "gelu", "layer_norm_eps": 1e-5, **wrong})
        assert difference(by_dfn_ray(tmp_path), right) > 10 * BOUND, wrong


def test_a_siglip_with_exact_gelu_exceeds_the_bound(tmp_path):
    deep = {"num_hidden_layers": 6}
    layouts.siglip(tmp_path, deep, deep, layout_tokenizers.unigram_tokenizer())
    right = by_transformers(tmp_path)
    edited(tmp_path, hidden_act="gelu")
    assert difference(by_dfn_ray(tmp_path), right) > 10 * BOUND
