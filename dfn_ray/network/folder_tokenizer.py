"""Tokenizers of networks in transformers' layout, read without transformers and torch.

Tokens equal those of transformers 5: a `tokenizer.json` is read as by the `tokenizers` package, a
`spiece.model` as by SiglipTokenizer (lower case, ASCII punctuation removed). Neither repairs text
(ftfy) nor unescapes HTML, unless `clean` names one of open_clip's cleaners, which then runs first.
As in all tokenizers of this package, `bounded_caption` bounds the time.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import normalizers

from dfn_ray.errors import InputError
from dfn_ray.network.byte_pairs import CLEANERS, bounded_caption

JSON_FILE, SENTENCEPIECE_FILE = "tokenizer.json", "spiece.model"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PROBES = ("a photo", "", "\U0010fffe")
"""Captions that every tokenizer must tokenize; the last one is in no vocabulary."""
_SPACE = "▁"
"""The character that stands for a space in sentencepiece."""


Pad = tuple[int | None, str] | list[Any]
"""Id and token of the padding; with None, the id that the tokenizer has for the token."""
_Side = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True)
class TextContext:
    """The text context of a network, and how captions are fitted into it."""

    length: int
    """Tokens of a caption, special ones and padding included."""
    pad: Pad
    padding_side: _Side = "right"
    truncation_side: _Side = "right"

    def bounded(self, caption: str) -> str:
        """The part of a caption that is read."""
        return bounded_caption(caption, keep_end=self.truncation_side == "left")


_CONTEXT_OPTIONS = ("pad", "padding_side", "truncation_side")


class JsonTokenizer:
    """A tokenizer defined by a `tokenizer.json`."""

    def __init__(
        self,
        content: bytes | tokenizers.Tokenizer,
        context: TextContext,
        *,
        lower_case: bool = False,
        clean: str | None = None,
        special: Sequence[str] = (),
    ) -> None:
        """Reads the content of the file, or changes what `parsed_json` returned.

        `lower_case` applies before the file's own normalizer. `special` are tokens of the
        vocabulary that a caption is split at, besides those that the file lists. Raises ValueError
        if the file is no tokenizer, lacks the pad token or a special one, or splits words at
        random.
        """
        self._tokenizer = parsed_json(content) if isinstance(content, bytes) else content
        if dropout := getattr(self._tokenizer.model, "dropout", None):
            raise ValueError(
                f"model.dropout: {dropout:.4g} splits words at random, so scores would not repeat"
            )
        for token in special:
            if self.id_of(token) is None:
                raise ValueError(f"it does not contain the special token {token!r}")
        self._tokenizer.add_special_tokens(
            [tokenizers.AddedToken(token, special=True, normalized=False) for token in special]
        )
        added = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        _require_room(context.length, added)
        if lower_case:
            steps = [normalizers.Lowercase(), self._tokenizer.normalizer]
            self._tokenizer.normalizer = normalizers.Sequence([s for s in steps if s is not None])
        self._tokenizer.enable_truncation(context.length, direction=context.truncation_side)
        self.pad = _pad(self, context.pad)
        self._tokenizer.enable_padding(
            direction=context.padding_side,
            pad_id=self.pad[0],
            pad_token=self.pad[1],
            length=context.length,
        )
        self._context = context
        self._clean = _cleaner(clean)
        with _value_errors():
            self._largest_probed = int(self(_PROBES).max())

    @property
    def rows(self) -> int:
        """Number of embeddings that the tokens need: one more than the largest id."""
        known = self._tokenizer.get_vocab(with_added_tokens=True).values()
        # The post-processor may add ids to every caption that are not in the vocabulary.
        return max(self._largest_probed, max(known, default=-1)) + 1

    def id_of(self, token: str) -> int | None:
        """Returns the id of a token; None if the vocabulary does not contain it."""
        return self._tokenizer.token_to_id(token)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns the tokens of each caption, int32 (N, context length).

        Captions are cut and padded to the context; special tokens are kept.
        """
        context = self._context
        tokens_NL = np.zeros((len(captions), context.length), np.int32)
        for row_L, caption in zip(tokens_NL, captions, strict=True):
            # One by one: encode_batch starts threads, which a forked process does not have.
            row_L[:] = self._tokenizer.encode(self._clean(context.bounded(caption))).ids
        return tokens_NL


class SentencePieceTokenizer:
    """A tokenizer defined by a `spiece.model`, with the tokens of SiglipTokenizer."""

    def __init__(
        self,
        content: bytes,
        context: TextContext,
        *,
        end: str,
        unknown: str,
        lower_case: bool = True,
        clean: str | None = None,
        special: Sequence[str] = (),
    ) -> None:
        """Reads the content of the file.

        `special` are pieces that a caption is split at, besides `end`, `unknown` and the pad token.
        Raises ValueError if it is no sentencepiece model or lacks the pad token, the end token or a
        special one, InputError if the sentencepiece package is not installed.
        """
        try:
            import sentencepiece  # noqa: PLC0415  an extra
        except ImportError:
            raise InputError(
                f"{SENTENCEPIECE_FILE}: needs the sentencepiece package. Run pip install "
                "'dfn_ray[sentencepiece]'"
            ) from None
        self._model: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise ValueError(str(error).strip() or "no sentencepiece model") from error
        _require_room(context.length, 1)
        self._context = context
        self.pad = _pad(self, context.pad)
        for name, token in (("eos_token", end), *(("special token", token) for token in special)):
            if self.id_of(token) is None:
                raise ValueError(f"it does not contain its {name} {token!r}")
        self._end = self._model.piece_to_id(end)
        splits = (end, unknown, context.pad[1], *special)
        self._special = {token: self._model.piece_to_id(token) for token in splits if token}
        self._split = re.compile(f"({'|'.join(map(re.escape, self._special))})")
        self._unknown, self._lower = unknown, lower_case
        self._unknown_length = len(self._model.encode(unknown, out_type=int))
        self._clean = _cleaner(clean)

    @property
    def rows(self) -> int:
        """Number of embeddings that the tokens need."""
        return max(self._model.get_piece_size(), self.pad[0] + 1)

    def id_of(self, token: str) -> int | None:
        """Returns the id of a token; None if the vocabulary does not contain it."""
        found = self._model.piece_to_id(token)
        return found if self._model.id_to_piece(found) == token else None

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns the tokens of each caption, int32 (N, context length).

        Captions are cut and padded to the context; the end token is kept.
        """
        context = self._context
        tokens_NL = np.full((len(captions), context.length), self.pad[0], np.int32)
        for row_L, caption in zip(tokens_NL, captions, strict=True):
            ids = self._ids(self._clean(context.bounded(caption)))
            most = context.length - 1
            ids = ids[:most] if context.truncation_side == "right" else ids[-most:]
            if not ids or ids[-1] != self._end:  # SiglipTokenizer does not end a text twice
                ids.append(self._end)
            is_right = context.padding_side == "right"
            row_L[slice(len(ids)) if is_right else slice(-len(ids), None)] = ids
        return tokens_NL

    def _ids(self, caption: str) -> list[int]:
        pieces: list[str | int] = []
        for part in self._split.split(_SPACE + caption.replace(_SPACE, " ")):
            if part in self._special:
                pieces.append(self._special[part])
            elif part:
                pieces += self._pieces(part)
        if len(pieces) > 1 and pieces[0] == _SPACE and isinstance(pieces[1], int):
            del pieces[0]
        return [p if isinstance(p, int) else self._model.piece_to_id(p) for p in pieces]

    def _pieces(self, text: str) -> list[str]:
        """The pieces of a text without special tokens.

        Encodes the text after an unknown token, so that its first space is kept.
        """
        text = text.lower() if self._lower else text
        text = " ".join(text.translate(_NO_PUNCTUATION).split())
        return self._model.encode(self._unknown + text, out_type=str)[self._unknown_length :]


FolderTokenizer = JsonTokenizer | SentencePieceTokenizer


def parsed_json(content: bytes) -> tokenizers.Tokenizer:
    """Returns a `tokenizer.json` as a tokenizer. Raises ValueError if it is none."""
    with _value_errors():
        return tokenizers.Tokenizer.from_str(content.decode())


def folder_tokenizer(
    name: str,
    content: bytes | tokenizers.Tokenizer,
    *,
    context_length: int,
    options: Mapping[str, Any],
) -> FolderTokenizer:
    """Returns the tokenizer that a file of this name and content defines.

    `options` are those of TextContext and of the tokenizer's class in one mapping, as networks
    store them. Raises TypeError for an option that is unknown or missing, ValueError for a file
    that cannot be used, InputError if a package is missing.
    """
    fitting = {key: options[key] for key in _CONTEXT_OPTIONS if key in options}
    others = {key: value for key, value in options.items() if key not in fitting}
    context = TextContext(length=context_length, **fitting)
    if name == JSON_FILE or not isinstance(content, bytes):
        return JsonTokenizer(content, context, **others)
    return SentencePieceTokenizer(content, context, **others)


def require_embeddings(tokenizer: FolderTokenizer, rows: int, place: str) -> None:
    """Raises InputError if a network with `rows` embeddings has none for one of the tokens."""
    if (needed := tokenizer.rows) > rows:
        raise InputError(f"{place}: {needed:,} tokens, but the network has {rows:,} embeddings")


@contextmanager
def _value_errors() -> Iterator[None]:
    """Turns all exceptions of the tokenizers package into ValueError.

    The package raises bare Exception, and PanicException (a BaseException) if its Rust code panics.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(str(error)) from error


def _require_room(context_length: int, added: int) -> None:
    if added >= context_length:
        raise ValueError(
            f"it adds {added} tokens to every caption, but the network's context has only "
            f"{context_length}"
        )


def _pad(tokenizer: FolderTokenizer, pad: Pad) -> tuple[int, str]:
    number, token = pad
    if number is None:
        number = tokenizer.id_of(token)
    if number is None:
        raise ValueError(f"it does not contain its pad_token {token!r}")
    return number, token


def _cleaner(name: str | None) -> Callable[[str], str]:
    return (lambda text: text) if name is None else CLEANERS[name]
