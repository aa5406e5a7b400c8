"""Tokens equal open_clip's for any caption, in bounded time and memory, and without torch."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.errors import InputError
from dfn_ray.network import byte_pairs
from dfn_ray.network.byte_pairs import BytePairTokenizer
from dfn_ray.network.packed import pack_network
from dfn_ray.network.tokenizer import TokenizerSpec, count_cut_captions, resolve, tokenize
from tests.network.conftest import CAPTIONS, KINDS, spec

CLIP = TokenizerSpec(context_length=77)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_open_clips_tokenizer(folders, kind):
    tokens_NL = tokenize(pack_network(spec(folders(kind))).tokenizer, CAPTIONS)
    wanted_NL = open_clip.get_tokenizer(f"local-dir:{folders(kind)}")(CAPTIONS)
    assert tokens_NL.dtype == np.int32
    assert np.array_equal(tokens_NL, wanted_NL.numpy())


def test_no_captions_give_no_tokens():
    assert tokenize(CLIP, []).shape == (0, 77)


PLAIN = open_clip.SimpleTokenizer()


@functools.cache
def plain_tokenizer(options: str) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(**json.loads(options))


CHARACTERS = [
    "&amp;", "&#38;", "&", "amp;", "#x26;", ";", "&lt", "\u00c3\u00a9", "\u00e2\u20ac\u201d",
    "e\u0301", "\u0301",
    "\u200d", "\U0001f469", "\ufb01", "\x1b[31m", "\x85", "\xa0", "\n", " ", "  ", "'s", "'LL", "a",
    "ab", "th", "the",
    "ing", "Z", "\u4e2d", "\u0430", "7", "!!", "<end_of_text>", "<start_of_text>", "\0", "\ufffd",
    "\u017f", "\u0130",
]  # fmt: skip


OPTIONS = [
    {},
    {"clean": "whitespace"},
    {"clean": "canonicalize"},
    {"clean": "whitespace", "additional_special_tokens": ["<x>", "the"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@settings(deadline=None, max_examples=200)
@given(parts=st.lists(st.one_of(st.sampled_from(CHARACTERS), st.text(max_size=30)), max_size=60))
def test_tokens_of_any_caption_up_to_the_bound_are_those_of_plain_open_clip(options, parts):
    caption = "".join(parts)[:4096]
    for length in (77, 5, 2):
        spec = TokenizerSpec(context_length=length, kwargs_json=json.dumps(options))
        plain = plain_tokenizer(json.dumps(options))([caption], context_length=length)
        assert np.array_equal(tokenize(spec, [caption]), plain.numpy())


@settings(deadline=None, max_examples=300)
@given(word=st.text("abcdeinorstth\u0120\u00c3", min_size=2, max_size=80))
def test_words_are_merged_as_open_clip_merges_them(word):
    parts = [*word[:-1], word[-1] + "</w>"]
    assert " ".join(byte_pairs.merge_pairs(parts, PLAIN.bpe_ranks)) == PLAIN.bpe(word)


@pytest.mark.parametrize("length", [4095, 4096, 4097, 60_000])
def test_a_caption_is_cut_at_the_bound_after_its_leading_space_and_counted(length):
    caption = " \n\t" * 40 + "w" * 10 + " " + "x y " * (length // 4) + "!"
    caption = caption[: 120 + length]
    cut = caption if len(caption) <= 4096 else caption.lstrip()[:4096]
    assert np.array_equal(tokenize(CLIP, [caption])[0], PLAIN([cut])[0].numpy())
    stripped = [" " * 5000 + "a", "a" + " " * 5000, caption]
    assert count_cut_captions(stripped) == (len(caption.strip()) > 4096)


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
    tokenize(CLIP, [caption])
    # 25 ms at most on an idle core; without the bound the entities take 6 s, without the heap a
    # word 2 s
    assert time.process_time() - started < 0.5


def test_the_word_memory_is_bounded_and_forgetting_changes_no_token(monkeypatch):
    monkeypatch.setattr(byte_pairs, "_MAX_CACHED_WORDS", 50)
    built = BytePairTokenizer(context_length=77)
    captions = [f"x{a}y z{a}w <end_of_text>" for a in "abcdefghijklmnopqrstuvwxyzäöüß"] * 3
    assert np.array_equal(built(captions), PLAIN(captions).numpy())
    assert built.cached_words <= 52


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


def test_what_prepares_samples_imports_neither_torch_nor_open_clip():
    code = (
        "import sys, dfn_ray.preparing.prepare, dfn_ray.training.data.feed\n"
        "from dfn_ray.network.tokenizer import TokenizerSpec, tokenize\n"
        "tokenize(TokenizerSpec(context_length=77), ['a photo'])\n"
        "print({'torch', 'open_clip', 'torchvision'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bpe_path": "x.gz"}, r"tokenizer_kwargs\.bpe_path: not an option"),
        ({"clean": "upper"}, r"tokenizer_kwargs\.clean: need one of lower, .*got 'upper'"),
        ({"additional_special_tokens": "<x>"}, "need a list of strings, got '<x>'"),
    ],
    ids=str,
)
def test_options_that_the_tokenizer_does_not_have_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        resolve({"text_cfg": {"tokenizer_kwargs": options}}, None)


@pytest.mark.parametrize(("rows", "is_enough"), [(49407, False), (49408, True), (50000, True)])
def test_a_network_must_have_an_embedding_for_every_token(rows, is_enough):
    config = {"text_cfg": {"context_length": 77, "vocab_size": rows}}
    if is_enough:
        assert resolve(config, None).context_length == 77
        return
    with pytest.raises(InputError, match="49,407 embeddings, but CLIP's tokenizer has 49,408"):
        resolve(config, None)
