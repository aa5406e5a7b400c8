"""A tokenizer as the files from which transformers loads it."""

from __future__ import annotations

import json
from typing import Any

from dfn_ray.errors import InputError
from dfn_ray.network.byte_pairs import tokens_and_merges
from dfn_ray.network.folder_tokenizer import JSON_FILE, SENTENCEPIECE_FILE
from dfn_ray.network.tokenizer import TokenizerSpec
from dfn_ray.network.transformers_layout.clip_merges import clip_tokenizer_json
from dfn_ray.network.transformers_layout.read_tokenizer import MERGES, VOCABULARY
from dfn_ray.network.transformers_layout.special_tokens import CONFIG

_START, _END = "<|startoftext|>", "<|endoftext|>"
_CLEANING_NOTE = (
    "captions were cleaned as in open_clip, which transformers does not do: if cleaning changes a "
    "caption (HTML entities, broken encodings{}), its tokens differ"
)


def tokenizer_files(spec: TokenizerSpec, *, siglip: bool) -> tuple[dict[str, bytes], list[str]]:
    """Returns the files, and notes for their users, one line each.

    Raises InputError for options that transformers' tokenizers cannot express.
    """
    options = json.loads(spec.kwargs_json)
    if spec.kind == "huggingface":
        return dict(spec.files), [_CLEANING_NOTE.format(", and other steps in its config")]
    if spec.kind == "clip":
        return _builtin_files(spec, options), [_CLEANING_NOTE.format("")]
    values: dict[str, Any] = {
        "model_max_length": spec.context_length,
        "pad_token": options["pad"][1],
        "padding_side": options["padding_side"],
        "truncation_side": options["truncation_side"],
    }
    if special := options.get("special"):
        values["additional_special_tokens"] = special
    if siglip:
        values["model_input_names"] = ["input_ids"]  # padding is not masked, as in training
    file, content = spec.files[0]
    if file == SENTENCEPIECE_FILE:
        values |= {
            "tokenizer_class": "SiglipTokenizer",
            "do_lower_case": options["lower_case"],
            "eos_token": options["end"],
            "unk_token": options["unknown"],
        }
    elif options["lower_case"]:
        values["tokenizer_class"] = "Siglip2Tokenizer"
    else:
        values |= _class_of(content, siglip)
    files = {file: content, CONFIG: (json.dumps(values, indent=2) + "\n").encode()}
    also = ", punctuation, case" if options["clean"] == "canonicalize" else ""
    return files, [_CLEANING_NOTE.format(also)] if options["clean"] else []


def _class_of(content: bytes, siglip: bool) -> dict[str, str]:
    """The class that reads the file unchanged; CLIPTokenizer rebuilds most of it by its rules."""
    value = json.loads(content)
    clips = json.loads(
        clip_tokenizer_json({_START: 0, _END: 1}, [], start=_START, end=_END, unknown=_END)
    )
    special = {token["content"] for token in value.get("added_tokens", ())}
    rules = ("normalizer", "pre_tokenizer")
    if not siglip and {_START, _END} <= special and all(value[r] == clips[r] for r in rules):
        return {"tokenizer_class": "CLIPTokenizer", "bos_token": _START, "eos_token": _END}
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def _builtin_files(spec: TokenizerSpec, options: dict[str, Any]) -> dict[str, bytes]:
    """The files of CLIP's own tokenizer under transformers' names."""
    if options.get("clean", "lower") != "lower" or options.get("additional_special_tokens"):
        raise InputError(
            f"CLIPTokenizer cannot express text_cfg.tokenizer_kwargs = {json.dumps(options)}"
        )
    tokens, merges = tokens_and_merges()
    vocabulary = {token: number for number, token in enumerate([*tokens, _START, _END])}
    values = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": spec.context_length,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _END,
    }
    lines = ["#version: 0.2", *map(" ".join, merges), ""]
    return {
        JSON_FILE: clip_tokenizer_json(vocabulary, merges, start=_START, end=_END, unknown=_END),
        VOCABULARY: json.dumps(vocabulary, ensure_ascii=False).encode(),
        MERGES: "\n".join(lines).encode(),
        CONFIG: (json.dumps(values, indent=2) + "\n").encode(),
    }
