"""Reads the tokenizer files of a folder as a tokenizer that can be sent to workers.

A `tokenizer.json` is used unchanged, but for special tokens that tokenizer_config.json adds.
`vocab.json` and `merges.txt` are converted to one as in CLIPTokenizer. A `spiece.model` is read by
sentencepiece where transformers does so: for SiglipTokenizer, or without a `tokenizer.json`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import tokenizers

from dfn_ray.errors import InputError, shortened
from dfn_ray.network.byte_pairs import BytePairTokenizer
from dfn_ray.network.folder_tokenizer import (
    JSON_FILE,
    SENTENCEPIECE_FILE,
    FolderTokenizer,
    folder_tokenizer,
    parsed_json,
    require_embeddings,
)
from dfn_ray.network.small_files import SmallFiles
from dfn_ray.network.tokenizer import TokenizerSpec, build
from dfn_ray.network.transformers_layout.clip_merges import clip_tokenizer_json
from dfn_ray.network.transformers_layout.network_kind import Kind
from dfn_ray.network.transformers_layout.special_tokens import (
    CONFIG,
    sides_of,
    special_token,
    special_tokens,
)

_LOG = logging.getLogger(__name__)

VOCABULARY, MERGES = "vocab.json", "merges.txt"
TOKENIZER_FILES = (JSON_FILE, VOCABULARY, MERGES, SENTENCEPIECE_FILE)
"""The files that a tokenizer may be built from."""
_OPEN_CLIP_CLEANERS: Mapping[Kind, str] = {"clip": "lower", "siglip": "canonicalize"}
"""The cleaner of open_clip's configs for each kind."""
_SIGLIP, _LOWER_CASING = "SiglipTokenizer", "Siglip2Tokenizer"
_GEMMA = ("GemmaTokenizer", "GemmaTokenizerFast", _LOWER_CASING)
"""Classes of SigLIP 2's tokenizer. They pad on the left by default; Siglip2Tokenizer converts to
lower case regardless of its file, as in the training of the networks."""

_UNMASKED = (
    "%s: padding is not masked, as in the training of SigLIP; transformers may mask it, because "
    'model_input_names of %s is not ["input_ids"]'
)
_OWN_CLEANING = (
    "%s: captions are cleaned by its own tokenizer only, without open_clip's repair of text and "
    'HTML entities%s (set caption_cleaning = "open_clip" for both)'
)
_CASED = " and, unlike in the training of SigLIP 2, without conversion to lower case"


def tokenizer_of(
    folder: SmallFiles, text_cfg: Mapping[str, Any], kind: Kind, *, open_clips_cleaning: bool
) -> TokenizerSpec:
    """Returns the tokenizer of a network. Raises InputError that names the file and the problem."""
    context, rows = text_cfg["context_length"], text_cfg["vocab_size"]
    config = folder.json_object(CONFIG) if CONFIG in folder else {}
    _refuse_unsupported(folder, config)
    found = _file(folder, config, kind, rows)
    if found is None:
        return _builtin_tokenizer(folder, context, rows, kind)
    name, content = found
    place = f"{folder.label}/{name}"
    parsed = _parsed(place, content) if name == JSON_FILE else None  # once: it takes up to 1 s
    in_file = {} if parsed is None else sides_of(parsed)
    sides = {
        side: _side(folder, config, side, in_file) for side in ("padding_side", "truncation_side")
    }
    if kind == "clip" and sides["padding_side"] == "left":
        raise InputError(
            f"{folder.label}/{CONFIG}: padding_side: 'left' needs a mask in a CLIP, which is not "
            "supported; need right"
        )
    lower_casing = config.get("tokenizer_class") == _LOWER_CASING
    kwargs: dict[str, Any] = {
        "clean": _OPEN_CLIP_CLEANERS[kind] if open_clips_cleaning else None,
        "lower_case": lower_casing if name == JSON_FILE else _lower_case(folder, config),
        **sides,
    }
    if name == SENTENCEPIECE_FILE:
        kwargs["end"] = special_token(folder, config, "eos_token") or "</s>"
        kwargs["unknown"] = special_token(folder, config, "unk_token") or "<unk>"
    if special := special_tokens(folder, config, parsed):
        kwargs["special"] = special
    longest = config.get("model_max_length")
    if type(longest) is int and 2 < longest < context:
        context = longest
    pad = _pad_token(folder, config, kind)
    tokenizer = _read(place, name, parsed or content, context, {"pad": (None, pad), **kwargs})
    _require_fitting(tokenizer, place, rows, text_cfg)
    if kind == "clip" and (start := special_token(folder, config, "bos_token")) is not None:
        _require_start(tokenizer, place, start)
    if kind == "siglip" and config.get("model_input_names") != ["input_ids"]:
        _LOG.warning(_UNMASKED, folder.label, CONFIG)
    if not open_clips_cleaning:
        cased = config.get("tokenizer_class") in _GEMMA and b'"Lowercase"' not in content
        _LOG.warning(_OWN_CLEANING, folder.label, _CASED if cased and not lower_casing else "")
    return TokenizerSpec(
        context_length=context,
        kwargs_json=json.dumps({"pad": tokenizer.pad, **kwargs}, sort_keys=True),
        files=((name, content),),
        reader="folder",
    )


def _file(
    folder: SmallFiles, config: Mapping[str, Any], kind: Kind, rows: int
) -> tuple[str, bytes] | None:
    """Name and content of the file that the tokenizer is built from; None if there is none."""
    by_sentencepiece = config.get("tokenizer_class") == _SIGLIP and SENTENCEPIECE_FILE in folder
    if JSON_FILE in folder and not by_sentencepiece:
        return JSON_FILE, folder.content(JSON_FILE)
    if kind == "clip" and VOCABULARY in folder and MERGES in folder:
        return JSON_FILE, _of_merges(folder, config, rows)
    if SENTENCEPIECE_FILE in folder:
        return SENTENCEPIECE_FILE, folder.content(SENTENCEPIECE_FILE)
    return None


def _of_merges(folder: SmallFiles, config: Mapping[str, Any], rows: int) -> bytes:
    """A tokenizer.json with CLIP's vocabulary and merges, assembled as in CLIPTokenizer."""
    vocabulary = folder.json_object(VOCABULARY)
    place = f"{folder.label}/{VOCABULARY}"
    start = special_token(folder, config, "bos_token") or "<|startoftext|>"
    end = special_token(folder, config, "eos_token") or "<|endoftext|>"
    for token in (start, end, *vocabulary):
        number = vocabulary.get(token)
        # The package allocates a table up to the largest number.
        if type(number) is not int or not 0 <= number < rows:
            raise InputError(
                f"{place}: {shortened(token)}: need a number below {rows:,}, "
                f"text_config.vocab_size, got {shortened(repr(number))}"
            )
    try:
        lines = folder.content(MERGES).decode().splitlines()
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        if wrong := [merge for merge in merges if len(merge) != 2]:
            raise ValueError(f"need two tokens a line, got {shortened(' '.join(wrong[0]))!r}")
        unknown = special_token(folder, config, "unk_token") or end
        return clip_tokenizer_json(vocabulary, merges, start=start, end=end, unknown=unknown)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  the package raises no narrower type
        raise InputError(f"{place} and {MERGES}: no byte pairs: {_line(error)}") from None


def _refuse_unsupported(folder: SmallFiles, config: Mapping[str, Any]) -> None:
    """Raises InputError for settings that run code or give captions other tokens."""
    place = f"{folder.label}/{CONFIG}"
    if config.get("auto_map"):
        raise InputError(
            f"{place}: auto_map: the tokenizer is custom code, and code from a hub is never run"
        )
    for key in ("split_special_tokens", "sp_model_kwargs"):
        if value := config.get(key):
            raise InputError(f"{place}: {key}: not supported, got {shortened(repr(value))}")


def _require_start(tokenizer: FolderTokenizer, place: str, start: str) -> None:
    """Raises InputError if captions do not begin with the token that the config names."""
    number = tokenizer.id_of(start)
    if number is not None and int(tokenizer([""])[0, 0]) != number:
        raise InputError(
            f"{place}: does not begin captions with {shortened(repr(start))}, the bos_token of "
            f"{CONFIG}"
        )


def _line(error: Exception) -> str:
    return shortened(" ".join(str(error).split()), 200)


def _pad_token(folder: SmallFiles, config: Mapping[str, Any], kind: Kind) -> str:
    """The token that pads captions; by default that of the tokenizer's class."""
    gemma = config.get("tokenizer_class") in _GEMMA
    default = "<|endoftext|>" if kind == "clip" else "<pad>" if gemma else "</s>"
    return special_token(folder, config, "pad_token") or default


def _parsed(place: str, content: bytes) -> tokenizers.Tokenizer:
    try:
        return parsed_json(content)
    except ValueError as error:
        raise InputError(f"{place}: cannot be used as a tokenizer: {_line(error)}") from None


def _read(
    place: str,
    name: str,
    content: bytes | tokenizers.Tokenizer,
    context: int,
    options: Mapping[str, Any],
) -> FolderTokenizer:
    try:
        return folder_tokenizer(name, content, context_length=context, options=options)
    except ValueError as error:
        raise InputError(f"{place}: cannot be used as a tokenizer: {_line(error)}") from None


def _require_fitting(
    tokenizer: FolderTokenizer, place: str, rows: int, text_cfg: Mapping[str, Any]
) -> None:
    """Raises InputError if a token has no embedding, or captions lack the network's end token."""
    require_embeddings(tokenizer, rows, f"{place}: text_config.vocab_size")
    tokens_NL = tokenizer(["a photo", ""])
    end = text_cfg.get("eos_id")
    if end is not None and not (tokens_NL == end).any(axis=1).all():
        raise InputError(
            f"{place}: does not end captions with {end}, the eos_token_id at which the network "
            "pools the text"
        )


def _builtin_tokenizer(folder: SmallFiles, context: int, rows: int, kind: Kind) -> TokenizerSpec:
    """CLIP's own tokenizer, for a folder without one."""
    if kind == "siglip":
        raise InputError(
            f"{folder.label}: has no tokenizer ({JSON_FILE} or {SENTENCEPIECE_FILE}), and SigLIPs "
            "use different tokenizers; add the tokenizer files of the network that it was trained "
            "from"
        )
    spec = TokenizerSpec(context_length=context)
    tokenizer = build(spec)
    assert isinstance(tokenizer, BytePairTokenizer)
    if tokenizer.vocab_size > rows:
        raise InputError(
            f"{folder.label}: has no tokenizer ({JSON_FILE}, or {VOCABULARY} and {MERGES}), and "
            f"CLIP's own has {tokenizer.vocab_size:,} tokens, but text_config.vocab_size is "
            f"{rows:,}"
        )
    _LOG.warning(
        "%s: has no tokenizer (%s, or %s and %s); using CLIP's own, with open_clip's cleaning",
        folder.label,
        JSON_FILE,
        VOCABULARY,
        MERGES,
    )
    return spec


def _side(
    folder: SmallFiles, config: Mapping[str, Any], key: str, in_json: Mapping[str, str]
) -> str:
    """The side by the config, else by tokenizer.json, else by the tokenizer's class."""
    left = key == "padding_side" and config.get("tokenizer_class") in _GEMMA
    value = config.get(key) or in_json.get(key) or ("left" if left else "right")
    if value not in ("left", "right"):
        raise InputError(
            f"{folder.label}/{CONFIG}: {key}: need left or right, got {shortened(repr(value))}"
        )
    return value


def _lower_case(folder: SmallFiles, config: Mapping[str, Any]) -> bool:
    value = config.get("do_lower_case", True)
    if not isinstance(value, bool):
        raise InputError(
            f"{folder.label}/{CONFIG}: do_lower_case: need true or false, got "
            f"{shortened(repr(value))}"
        )
    return value
