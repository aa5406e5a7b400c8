"""Special tokens and sides of a tokenizer, as stated in the small files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

from dfn_ray.errors import InputError, shortened
from dfn_ray.network.small_files import SmallFiles

CONFIG, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
_ADDED = "added_tokens.json"
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_SIGLIP_ROLES = ("</s>", "<unk>")
"""The end token and the unknown token of SiglipTokenizer, by default."""


def sides_of(parsed: tokenizers.Tokenizer) -> dict[str, str]:
    """Returns the sides that a tokenizer.json pads and cuts, if it states them."""
    settings = {"padding_side": parsed.padding, "truncation_side": parsed.truncation}
    return {side: value["direction"].lower() for side, value in settings.items() if value}


def special_token(folder: SmallFiles, config: Mapping[str, Any], key: str) -> str | None:
    """Returns a special token by its role, from either file that may define it."""
    for name in (SPECIAL, CONFIG):  # as in transformers, which reads the second one first
        values = config if name == CONFIG else {}
        if name == SPECIAL and SPECIAL in folder:
            values = folder.json_object(SPECIAL)
        if values.get(key) is not None:
            return _text_of(folder, name, key, values[key])
    return None


def special_tokens(
    folder: SmallFiles, config: Mapping[str, Any], parsed: tokenizers.Tokenizer | None
) -> list[str]:
    """Returns the tokens at which transformers splits captions, without those that the file lists.

    `parsed` is the tokenizer.json; None: a spiece.model, whose reader splits at the roles. Raises
    InputError for an added token that the file lacks, or that is not special.
    """
    roles = [token for role in _ROLES if (token := special_token(folder, config, role))]
    if parsed is None:
        added, found = {*roles, *_SIGLIP_ROLES}, []
    else:
        added = {token.content for token in parsed.get_added_tokens_decoder().values()}
        found = [token for token in roles if parsed.token_to_id(token) is not None]
    for place, token, is_special in _listed_tokens(folder, config):
        known = parsed is None or parsed.token_to_id(token) is not None
        if token not in added and not (is_special and known):
            raise InputError(
                f"{folder.label}/{place}: adds the token {shortened(repr(token))}, which the "
                "tokenizer's file does not list. Load the tokenizer with transformers and save it "
                "again"
            )
        found.append(token)
    return [token for token in dict.fromkeys(found) if token not in added]


def _listed_tokens(
    folder: SmallFiles, config: Mapping[str, Any]
) -> Iterator[tuple[str, str, bool]]:
    """The file, the token, and True for a special token, of all tokens added to a tokenizer."""
    special = folder.json_object(SPECIAL) if SPECIAL in folder else {}
    for name, values in ((CONFIG, config), (SPECIAL, special)):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            listed = values.get(key) or []
            for value in listed.values() if isinstance(listed, dict) else listed:
                yield name, _text_of(folder, name, key, value), True
    decoder = config.get("added_tokens_decoder") or {}
    for value in decoder.values() if isinstance(decoder, dict) else [decoder]:
        token = _text_of(folder, CONFIG, "added_tokens_decoder", value)
        yield CONFIG, token, isinstance(value, dict) and value.get("special") is True
    if _ADDED in folder:
        for token in folder.json_object(_ADDED):
            yield _ADDED, token, False


def _text_of(folder: SmallFiles, name: str, key: str, value: Any) -> str:
    """The text of a token. Raises InputError for another value."""
    token = value.get("content") if isinstance(value, dict) else value
    if not isinstance(token, str) or not token:
        raise InputError(
            f"{folder.label}/{name}: {key}: need a token, got {shortened(repr(value))}"
        )
    return token
