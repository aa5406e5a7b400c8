"""A tokenizer as the files that transformers reads it from."""

from __future__ import annotations

import json
from typing import Any

from dfn_ray.errors import InputError
from dfn_ray.network.byte_pairs import tokens_and_merges
from dfn_ray.network.folder_tokenizer import JSON_FILE, SENTENCEPIECE_FILE
from dfn_ray.network.tokenizer import TokenizerSpec
from dfn_ray.network.transformers_layout.clip_merges import clip_tokenizer_json
from dfn_ray.network.transformers_layout.read_tokenizer import CONFIG, MERGES, VOCABULARY

_START, _END = "<|startoftext|>", "<|endoftext|>"
_UNCLEANED = (
    "captions were cleaned as open_clip cleans them, which transformers does not: where that changes a caption (HTML "
    "entities, broken encodings{}), its tokens differ"
)


def tokenizer_files(spec: TokenizerSpec, *, siglip: bool) -> tuple[dict[str, bytes], list[str]]:
    """The files, and what a reader of them should know, a line each.

    Raises InputError for what transformers' tokenizers cannot express.
    """
    options = json.loads(spec.kwargs_json)
    if spec.kind == "huggingface":
        return dict(spec.files), [_UNCLEANED.format(", and whatever its config says beyond that")]
    if spec.kind == "clip":
        return _clips_own(spec, options), [_UNCLEANED.format("")]
    values: dict[str, Any] = {
        "model_max_length": spec.context_length,
        "pad_token": options["pad"][1],
        "padding_side": options["padding_side"],
        "truncation_side": options["truncation_side"],
    }
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
    return files, [_UNCLEANED.format(also)] if options["clean"] else []


def _class_of(content: bytes, siglip: bool) -> dict[str, str]:
    """The class that reads the file as it stands: CLIPTokenizer puts most of it together anew, by CLIP's rules."""
    value = json.loads(content)
    clips = json.loads(
        clip_tokenizer_json({_START: 0, _END: 1}, [], start=_START, end=_END, unknown=_END)
    )
    special = {token["content"] for token in value.get("added_tokens", ())}
    rules = ("normalizer", "pre_tokenizer")
    if not siglip and {_START, _END} <= special and all(value[r] == clips[r] for r in rules):
        return {"tokenizer_class": "CLIPTokenizer", "bos_token": _START, "eos_token": _END}
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def _clips_own(spec: TokenizerSpec, options: dict[str, Any]) -> dict[str, bytes]:
    """CLIP's byte pairs under transformers' names."""
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
