"""Tokens equal transformers' where small files beside the tokenizer change them; else a refusal."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import transformers

from dfn_ray.errors import InputError
from dfn_ray.network.packed import pack_network
from dfn_ray.network.tokenizer import tokenize
from tests.network import layouts
from tests.network.conftest import spec
from tests.network.layout_tokenizers import (
    CAPTIONS,
    gemma_tokenizer,
    siglip_tokenizer,
    unigram_tokenizer,
)
from tests.network.layouts import changed, two_files, write

CONFIG = "tokenizer_config.json"
LONG = "word " * 1000 + "tail dog"


def clip(folder):
    folder.mkdir()
    layouts.clip(folder, {}, {})
    return folder


def siglip(folder, kind):
    folder.mkdir()
    makers = {"sentencepiece": lambda: siglip_tokenizer(folder), "gemma": gemma_tokenizer}
    layouts.siglip(folder, {}, {}, makers.get(kind, unigram_tokenizer)())
    return folder


def require_equal_tokens(folder, captions=(*CAPTIONS, "hello world!", LONG)):
    ours = pack_network(spec(folder)).tokenizer
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=ours.context_length,
        return_tensors="np",
    )
    np.testing.assert_array_equal(tokenize(ours, list(captions)), theirs["input_ids"])


@pytest.mark.parametrize("role", ["pad_token", "unk_token"])
@pytest.mark.parametrize("files", ["tokenizer.json", "merges.txt"])
def test_captions_are_split_at_a_special_token_of_the_vocabulary(tmp_path, role, files):
    folder = clip(tmp_path / "clip")
    if files == "merges.txt":
        two_files(folder)
    plain = tokenize(pack_network(spec(folder)).tokenizer, ["hello world!"])
    changed(folder, CONFIG, lambda values: values.update({role: "!"}))
    require_equal_tokens(folder)
    other = tokenize(pack_network(spec(folder)).tokenizer, ["hello world!"])
    assert (plain != other).any()


def test_the_map_of_special_tokens_takes_precedence(tmp_path):
    folder = clip(tmp_path / "clip")
    write(folder, "special_tokens_map.json", {"pad_token": "!"})
    require_equal_tokens(folder)


def test_an_additional_special_token_is_one(tmp_path):
    folder = siglip(tmp_path / "siglip", "sentencepiece")
    changed(folder, CONFIG, lambda values: values.update(additional_special_tokens=["a"]))
    require_equal_tokens(folder)


def test_sentencepiece_is_used_where_transformers_uses_it(tmp_path):
    folder = siglip(tmp_path / "siglip", "sentencepiece")
    other = siglip(tmp_path / "other", "unigram")
    shutil.copy(other / "tokenizer.json", folder)
    require_equal_tokens(folder)


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_the_sides_of_a_tokenizer_json_apply_without_others(tmp_path, side):
    folder = siglip(tmp_path / "siglip", "gemma")
    padding = {
        "strategy": {"Fixed": 20}, "direction": side, "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    truncation = {"direction": side, "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    stated = {"padding": padding, "truncation": truncation}
    changed(folder, "tokenizer.json", lambda values: values.update(stated))
    changed(folder, CONFIG, lambda values: values.pop("padding_side", None))
    require_equal_tokens(folder)


def test_the_end_of_a_long_caption_is_read_where_its_start_is_cut(tmp_path):
    folder = clip(tmp_path / "clip")
    changed(folder, CONFIG, lambda values: values.update(truncation_side="left"))
    require_equal_tokens(folder)


ADDED = {"content": "dog", "special": False}
REFUSED = {
    "added_tokens.json": (
        "clip", lambda folder: write(folder, "added_tokens.json", {"dog": 814}),
        r"added_tokens\.json: adds the token 'dog', which the tokenizer's file does not list",
    ),
    "decoder": (
        "clip", lambda f: changed(f, CONFIG, lambda v: v.update(added_tokens_decoder={"1": ADDED})),
        "adds the token 'dog'",
    ),
    "split": (
        "clip", lambda f: changed(f, CONFIG, lambda v: v.update(split_special_tokens=True)),
        "split_special_tokens: not supported, got True",
    ),
    "start": (
        "clip", lambda f: changed(f, CONFIG, lambda v: v.update(bos_token="!")),
        "does not begin captions with '!', the bos_token",
    ),
    "no token": (
        "clip", lambda f: changed(f, CONFIG, lambda v: v.update(extra_special_tokens=[3])),
        "extra_special_tokens: need a token, got 3",
    ),
    "end": (
        "sentencepiece", lambda f: changed(f, CONFIG, lambda v: v.update(eos_token="<end>")),
        "does not contain its eos_token '<end>'",
    ),
    "absent": (
        "sentencepiece",
        lambda f: changed(f, CONFIG, lambda v: v.update(additional_special_tokens=["<zz>"])),
        "does not contain its special token '<zz>'",
    ),
    "sampling": (
        "sentencepiece",
        lambda f: changed(f, CONFIG, lambda v: v.update(sp_model_kwargs={"alpha": 0.1})),
        "sp_model_kwargs: not supported, got",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "edit", "message"), REFUSED.values(), ids=REFUSED)
def test_other_tokens_than_transformers_are_refused(tmp_path, kind, edit, message):
    folder = clip(tmp_path / "n") if kind == "clip" else siglip(tmp_path / "n", kind)
    edit(folder)
    with pytest.raises(InputError, match=message):
        pack_network(spec(folder))


@pytest.mark.parametrize("kind", ["sentencepiece", "unigram", "gemma"])
def test_a_siglip_whose_padding_transformers_masks_is_noted(tmp_path, kind, caplog):
    folder = siglip(tmp_path / "siglip", kind)
    pack_network(spec(folder))
    assert "padding is not masked" not in caplog.text
    changed(folder, CONFIG, lambda values: values.pop("model_input_names"))
    pack_network(spec(folder))
    assert "padding is not masked, as in the training of SigLIP" in caplog.text
