"""Scores are open_clip's cosine similarities, and do not depend on earlier scores."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray import config
from dfn_ray.images.decode import decode_images
from dfn_ray.network.filtering_network import batch_by_length
from dfn_ray.network.packed import build, pack_network
from dfn_ray.network.tokenizer import tokenize
from tests.network.conftest import CAPTIONS, KINDS, encoded, photo, spec

SIZES = [(64, 64), (120, 80), (33, 90), (300, 31), (80, 80), (47, 48), (160, 161), (20, 20)]
IMAGES = [photo(*size, seed) for seed, size in enumerate(SIZES)]


def chunk(packed):
    """Pixels and tokens of the eight pairs."""
    images = [encoded(image, "PNG") for image in IMAGES]
    decoded = decode_images(
        images,
        [packed.transform],
        mode="exact",
        on_truncated="fail",
        max_pixels=10**6,
        timeout_s=30.0,
    )
    return decoded.pixels[0], tokenize(packed.tokenizer, CAPTIONS)


@torch.inference_mode()
def by_open_clip(name, **settings):
    """The scores of a plain open_clip loop in float32, one pair at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(name, **settings)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    scores = []
    for image, caption in zip(IMAGES, CAPTIONS, strict=True):
        image_D = model.encode_image(preprocess(image)[None], normalize=True)[0]
        text_D = model.encode_text(tokenizer([caption]), normalize=True)[0]
        scores.append(float(image_D @ text_D))
    return np.array(scores)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_a_plain_open_clip_loop(folders, kind):
    packed = pack_network(spec(folders(kind)))
    scores = build(packed).score(*chunk(packed), batch_size=3)
    assert scores.score_N.dtype == np.float32
    wanted = by_open_clip(f"local-dir:{folders(kind)}")
    assert np.abs(scores.score_N - wanted).max() < 1e-5
    assert np.ptp(wanted) > 0.01  # the comparison could fail


@pytest.mark.parametrize("resize_mode", ["squash", "longest"])
def test_scores_under_another_resize_equal_open_clips(folders, resize_mode):
    packed = pack_network(spec(folders("vit"), resize_mode=resize_mode, quick_gelu=True))
    wanted = by_open_clip(
        f"local-dir:{folders('vit')}", image_resize_mode=resize_mode, force_quick_gelu=True
    )
    scores = build(packed).score(*chunk(packed), batch_size=8)
    assert np.abs(scores.score_N - wanted).max() < 1e-5


def test_the_wrong_activation_would_show(folders):
    packed = pack_network(spec(folders("vit"), quick_gelu=True))
    scores = build(packed).score(*chunk(packed), batch_size=8)
    assert np.abs(scores.score_N - by_open_clip(f"local-dir:{folders('vit')}")).max() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_scores_are_near_and_taken_in_float32(folders, kind, precision):
    packed = pack_network(spec(folders(kind)))
    half = build(pack_network(spec(folders(kind), precision=precision)))
    pixels, tokens = chunk(packed)
    scores = half.score(pixels, tokens, batch_size=8)
    wanted = build(packed).score(pixels, tokens, batch_size=8)
    assert np.abs(scores.score_N - wanted.score_N).max() < 0.02
    image_BD = half.embed_images(pixels)
    assert image_BD.dtype == torch.float32
    assert (image_BD.norm(dim=-1) - 1).abs().max() < 1e-6


def test_the_same_chunk_gives_the_same_bits_whatever_came_before(folders):
    packed = pack_network(spec(folders("vit"), precision="bf16"))
    network = build(packed)
    pixels, tokens = chunk(packed)
    first = network.score(pixels, tokens, batch_size=3, keep_embeddings=True)
    network.score(pixels[:5], tokens[3:], batch_size=2)
    again = network.score(pixels, tokens, batch_size=3, keep_embeddings=True)
    fresh = build(packed).score(pixels, tokens, batch_size=3, keep_embeddings=True)
    for other in (again, fresh):
        assert np.array_equal(first.score_N, other.score_N)
        assert np.array_equal(first.image_embedding_ND, other.image_embedding_ND)
        assert np.array_equal(first.text_embedding_ND, other.text_embedding_ND)


def test_equal_captions_are_encoded_once_and_short_ones_without_padding(folders, monkeypatch):
    packed = pack_network(spec(folders("vit")))
    network = build(packed)
    shapes = []
    real = network._text_tower
    monkeypatch.setattr(
        network, "_text_tower", lambda model, x: shapes.append(x.shape) or real(model, x)
    )
    captions = ["a dog", "a cat on a sofa", "a dog", "a dog"]
    network.score(chunk(packed)[0][:4], tokenize(packed.tokenizer, captions), batch_size=8)
    assert [tuple(shape) for shape in shapes] == [(2, 7)]


def test_kept_embeddings_are_float16_and_give_the_score(folders):
    packed = pack_network(spec(folders("vit")))
    pixels, tokens = chunk(packed)
    scores = build(packed).score(pixels, tokens, batch_size=8, keep_embeddings=True)
    assert scores.image_embedding_ND is not None
    assert scores.text_embedding_ND is not None
    assert scores.image_embedding_ND.dtype == scores.text_embedding_ND.dtype == np.float16
    products = (scores.image_embedding_ND.astype(np.float32) * scores.text_embedding_ND).sum(1)
    assert np.abs(products - scores.score_N).max() < 2e-3
    assert build(packed).score(pixels, tokens, batch_size=8).image_embedding_ND is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_is_nan_where_an_embedding_is_not_finite(folders, value):
    packed = pack_network(spec(folders("vit")))
    row = int(tokenize(packed.tokenizer, ["dog"])[0, 1])
    packed.state["token_embedding.weight"][row] = value
    pixels, tokens = chunk(packed)
    score_N = build(packed).score(pixels, tokens, batch_size=8).score_N
    assert np.flatnonzero(np.isnan(score_N)).tolist() == [0, 3]


def test_scores_never_leave_minus_one_to_one(folders, monkeypatch):
    network = build(pack_network(spec(folders("vit"))))
    unit_ND = torch.nn.functional.normalize(
        torch.randn(1000, 512, generator=torch.manual_seed(0)), dim=-1
    )
    assert (unit_ND * unit_ND).sum(-1).max() > 1  # rounding does that
    monkeypatch.setattr(network, "embed_images", lambda pixels: unit_ND[pixels])
    monkeypatch.setattr(network, "embed_all_texts", lambda tokens, *, batch_size: unit_ND)
    score_N = network.score(np.arange(1000), np.zeros((1000, 1)), batch_size=100).score_N
    assert score_N.min() > 1 - 1e-6
    assert score_N.max() == 1


def test_an_empty_chunk_has_no_scores(folders):
    network = build(pack_network(spec(folders("vit"))))
    empty = np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 77), np.int32)
    assert network.score(*empty, batch_size=4, keep_embeddings=True).score_N.shape == (0,)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 300), batch_size=st.integers(1, 256))
def test_batches_by_length_cover_all_in_order_and_hold_little_padding(seed, count, batch_size):
    lengths = np.sort(np.random.default_rng(seed).integers(1, 78, count))
    batches = list(batch_by_length(lengths, batch_size))
    assert [i for b in batches for i in range(b.start, b.stop)] == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= batch.stop - batch.start <= batch_size
        assert lengths[batch][32:].max(initial=0) <= lengths[batch][0] * 1.25


def test_a_built_in_network_of_full_size_equals_open_clip():
    """ViT-B/32 with random weights: load, decode, tokenize and score."""
    packed = pack_network(config.Network(model="ViT-B-32", random_weights_seed=7))
    torch.manual_seed(7)
    wanted = by_open_clip("ViT-B-32", pretrained_text=False)
    scores = build(packed).score(*chunk(packed), batch_size=8)
    assert np.abs(scores.score_N - wanted).max() < 1e-5


@pytest.mark.slow
def test_compiled_towers_give_the_same_scores(folders):
    packed = pack_network(spec(folders("vit")))
    pixels, tokens = chunk(packed)
    compiled = build(packed, compile=True).score(pixels, tokens, batch_size=8).score_N
    assert np.abs(compiled - build(packed).score(pixels, tokens, batch_size=8).score_N).max() < 1e-5
