"""Tokens are open_clip's; cropping changes no embedding, and is refused where it would."""

from __future__ import annotations

import json
import time

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.clip import text, tokenizer
from dfn_ray.clip.network import load_network
from dfn_ray.clip.tokenizer import TokenizerSpec
from tests.clip.conftest import CAPTIONS, KINDS, spec

CLIP = TokenizerSpec(context_length=77)


def model_of(folder):
    return open_clip.create_model(f"local-dir:{folder}").eval()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_open_clips_tokenizer(folders, kind):
    tokens_NL = text.tokenize(load_network(spec(folders(kind))).tokenizer, CAPTIONS)
    wanted_NL = open_clip.get_tokenizer(f"local-dir:{folders(kind)}")(CAPTIONS)
    assert tokens_NL.dtype == np.int32
    assert np.array_equal(tokens_NL, wanted_NL.numpy())


def test_no_captions_give_no_tokens():
    assert text.tokenize(CLIP, []).shape == (0, 77)


PLAIN = open_clip.SimpleTokenizer()
CHARACTERS = [
    "&amp;", "&#38;", "&", "amp;", "#x26;", ";", "&lt", "\u00c3\u00a9", "\u00e2\u20ac\u201d", "e\u0301", "\u0301",
    "\u200d", "\U0001f469", "\ufb01", "\x1b[31m", "\x85", "\xa0", "\n", " ", "  ", "'s", "'LL", "a", "ab", "th", "the",
    "ing", "Z", "\u4e2d", "\u0430", "7", "!!", "<end_of_text>", "<start_of_text>", "\0", "\ufffd", "\u017f", "\u0130",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(parts=st.lists(st.one_of(st.sampled_from(CHARACTERS), st.text(max_size=30)), max_size=60))
def test_tokens_of_any_caption_up_to_the_bound_are_those_of_plain_open_clip(parts):
    caption = "".join(parts)[:4096]
    assert np.array_equal(text.tokenize(CLIP, [caption])[0], PLAIN([caption])[0].numpy())


@settings(deadline=None, max_examples=300)
@given(word=st.text("abcdeinorstth\u0120\u00c3", min_size=2, max_size=80))
def test_words_are_merged_as_open_clip_merges_them(word):
    parts = [*word[:-1], word[-1] + "</w>"]
    assert " ".join(tokenizer.merged(parts, PLAIN.bpe_ranks)) == PLAIN.bpe(word)


@pytest.mark.parametrize("length", [4095, 4096, 4097, 60_000])
def test_a_caption_is_cut_at_the_bound_after_its_leading_space_and_counted(length):
    caption = " \n\t" * 40 + "w" * 10 + " " + "x y " * (length // 4) + "!"
    caption = caption[: 120 + length]
    cut = caption if len(caption) <= 4096 else caption.lstrip()[:4096]
    assert np.array_equal(text.tokenize(CLIP, [caption])[0], PLAIN([cut])[0].numpy())
    stripped = [" " * 5000 + "a", "a" + " " * 5000, caption]
    assert tokenizer.cut_captions(stripped) == (len(caption.strip()) > 4096)


@pytest.mark.parametrize(
    "piece",
    [
        "&amp;",
        "amp;",
        "#38;",
        "#x26;",
        "AMP;",
        "\u0301",
        "\u200d",
        "\u00c3\u0192\u00c6\u2019",
        "\n",
        "\x85",
        "a",
        "qz",
    ],
)
def test_no_caption_holds_a_task_for_long(piece):
    caption = "&" + piece * 16_000
    started = time.process_time()
    text.tokenize(CLIP, [caption])
    # 25 ms at most on an idle core; without the bound the entities take 6 s, without the heap a word 2 s
    assert time.process_time() - started < 0.5


def test_the_word_memory_is_bounded_and_forgetting_changes_no_token(monkeypatch):
    monkeypatch.setattr(tokenizer, "_MOST_CACHED_WORDS", 50)
    built = tokenizer.build.__wrapped__(CLIP)
    captions = [f"x{a}y z{a}w <end_of_text>" for a in "abcdefghijklmnopqrstuvwxyzäöüß"] * 3
    assert torch.equal(built(captions), PLAIN(captions))
    assert len(built.cache) <= 52


def test_the_fingerprint_changes_with_each_part_of_a_tokenizer():
    files = (("tokenizer.json", b"{}"),)
    specs = [
        CLIP,
        TokenizerSpec(context_length=76),
        TokenizerSpec(context_length=77, kwargs_json='{"clean": "whitespace"}'),
        TokenizerSpec(context_length=77, files=files),
        TokenizerSpec(context_length=77, files=files, mode="clips"),
        TokenizerSpec(context_length=77, files=(("tokenizer.json", b"[]"),)),
        TokenizerSpec(context_length=77, files=(("vocab.json", b"{}"),)),
    ]
    assert len({json.dumps(spec.fingerprint()) for spec in specs}) == len(specs)


CROPPED = {"vit", "quick_gelu", "non_square", "resnet", "custom_text", "eos_pool", "timm"}


@pytest.mark.parametrize("kind", KINDS)
def test_only_causal_towers_read_at_the_end_token_are_cropped(folders, kind):
    assert text.can_crop_text(model_of(folders(kind))) == (kind in CROPPED)


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"pool_type": "first"},
        {"pool_type": "last"},
        {"pool_type": "none"},
        {"no_causal_mask": True},
    ],
    ids=str,
)
def test_towers_that_are_read_elsewhere_or_see_ahead_are_not_cropped(text_cfg):
    cfg = {**KINDS["custom_text"], "text_cfg": {**KINDS["custom_text"]["text_cfg"], **text_cfg}}
    del cfg["custom_text"]
    assert not text.can_crop_text(open_clip.CustomTextCLIP(**cfg))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_cropped_embeddings_equal_the_full_ones(folders, kind):
    model = model_of(folders(kind))
    tokens_NL = open_clip.get_tokenizer(f"local-dir:{folders(kind)}")(CAPTIONS)
    full_ND = model.encode_text(tokens_NL, normalize=False)
    length_N = text.lengths(model, tokens_NL.numpy())
    assert (length_N.min() < tokens_NL.shape[1]) == (kind in CROPPED)
    for row, length in enumerate(length_N):
        cropped_D = text.encode_text(model, tokens_NL[row : row + 1, :length])[0]
        assert (cropped_D - full_ND[row]).abs().max() < 1e-5


@torch.inference_mode()
def test_cropping_a_two_way_tower_would_change_its_embeddings(folders):
    """Why `can_crop_text` asks: the same cut that is free for CLIP is wrong for SigLIP."""
    model = model_of(folders("siglip"))
    tokens_NL = open_clip.get_tokenizer(f"local-dir:{folders('siglip')}")(
        ["a dog", "a photo of a house"]
    )
    full_ND = model.encode_text(tokens_NL)
    assert (model.encode_text(tokens_NL[:, :8]) - full_ND).abs().max() > 1e-3
