"""Tokenizers of networks in transformers' layout, read from their own file without transformers and without torch.

Tokens are those of transformers 5: a `tokenizer.json` as the `tokenizers` package reads it, a `spiece.model` as
SiglipTokenizer reads it (lower case, ASCII punctuation removed). Neither repairs text (ftfy) nor unescapes HTML, unless
`clean` names one of open_clip's cleaners, which then comes first. As for all tokenizers here, `looked_at` bounds time.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import normalizers

from dfn_ray.errors import InputError
from dfn_ray.network.byte_pairs import CLEANERS, looked_at

JSON_FILE, SENTENCEPIECE_FILE = "tokenizer.json", "spiece.model"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TRIED = ("a photo", "", "\U0010fffe")
"""Captions that a tokenizer must give tokens for: one of them is in no vocabulary."""
_SPACE = "▁"
"""How sentencepiece writes a space."""


Pad = tuple[int | None, str] | list[Any]
"""Id and token of what captions are filled up with; None: the id that the tokenizer has for it."""


class JsonTokenizer:
    """Turns captions into tokens by a `tokenizer.json`."""

    def __init__(
        self,
        content: bytes,
        *,
        context_length: int,
        pad: Pad,
        padding_side: Literal["left", "right"] = "right",
        truncation_side: Literal["left", "right"] = "right",
        lower_case: bool = False,
        clean: str | None = None,
    ) -> None:
        """`lower_case` comes before what the file says.

        Raises ValueError for no such file, for one without the padding, and for one that gives other tokens each time.
        """
        with _value_errors():
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        if dropout := getattr(self._tokenizer.model, "dropout", None):
            raise ValueError(
                f"model.dropout: {dropout:.4g} splits words at random; scores would not repeat"
            )
        added = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        _require_room(context_length, added)
        if lower_case:
            steps = [normalizers.Lowercase(), self._tokenizer.normalizer]
            self._tokenizer.normalizer = normalizers.Sequence([s for s in steps if s is not None])
        self._tokenizer.enable_truncation(context_length, direction=truncation_side)
        self.pad = _pad(self, pad)
        self._tokenizer.enable_padding(
            direction=padding_side, pad_id=self.pad[0], pad_token=self.pad[1], length=context_length
        )
        self._length = context_length
        self._cleaned = _cleaner(clean)
        with _value_errors():
            self._tried = int(self(_TRIED).max())

    @property
    def rows(self) -> int:
        """Number of embeddings that its tokens need: one more than the largest id."""
        known = self._tokenizer.get_vocab(with_added_tokens=True).values()
        return max(self._tried, max(known, default=-1)) + 1  # it may add others to every caption

    def id_of(self, token: str) -> int | None:
        """The id of a token; None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """The tokens of each caption, int32 (N, context_length): cut and padded to the context, special tokens kept."""
        tokens_NL = np.zeros((len(captions), self._length), np.int32)
        for row_L, caption in zip(tokens_NL, captions, strict=True):
            # One by one: encode_batch starts threads, which a forked process does not have.
            row_L[:] = self._tokenizer.encode(self._cleaned(looked_at(caption))).ids
        return tokens_NL


class SentencePieceTokenizer:
    """Turns captions into tokens by a `spiece.model`, as SiglipTokenizer does."""

    def __init__(
        self,
        content: bytes,
        *,
        context_length: int,
        pad: Pad,
        end: str,
        unknown: str,
        lower_case: bool = True,
        padding_side: Literal["left", "right"] = "right",
        truncation_side: Literal["left", "right"] = "right",
        clean: str | None = None,
    ) -> None:
        """Raises ValueError for no such file, and for one without the padding."""
        try:
            import sentencepiece  # noqa: PLC0415  an extra
        except ImportError:
            raise InputError(
                f"{SENTENCEPIECE_FILE}: needs the sentencepiece package; pip install 'dfn_ray[sentencepiece]', or add the "
                f"network's {JSON_FILE} to its folder"
            ) from None
        self._model: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise ValueError(str(error).strip() or "no sentencepiece model") from error
        _require_room(context_length, 1)
        self.pad = _pad(self, pad)
        self._end, self._length = self._model.piece_to_id(end), context_length
        self._special = {
            token: self._model.piece_to_id(token) for token in (end, unknown, pad[1]) if token
        }
        self._split = re.compile(f"({'|'.join(map(re.escape, self._special))})")
        self._unknown, self._lower = unknown, lower_case
        self._unknown_length = len(self._model.encode(unknown, out_type=int))
        self._sides = padding_side, truncation_side
        self._cleaned = _cleaner(clean)

    @property
    def rows(self) -> int:
        """Number of embeddings that its tokens need."""
        return self._model.get_piece_size()

    def id_of(self, token: str) -> int | None:
        """The id of a token; None if there is no such token."""
        found = self._model.piece_to_id(token)
        return found if self._model.id_to_piece(found) == token else None

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """The tokens of each caption, int32 (N, context_length): cut and padded to the context, the end token kept."""
        tokens_NL = np.full((len(captions), self._length), self.pad[0], np.int32)
        padding_side, truncation_side = self._sides
        for row_L, caption in zip(tokens_NL, captions, strict=True):
            ids = self._ids(self._cleaned(looked_at(caption)))
            most = self._length - 1
            ids = ids[:most] if truncation_side == "right" else ids[-most:]
            if not ids or ids[-1] != self._end:  # SiglipTokenizer does not end a text twice
                ids.append(self._end)
            row_L[slice(len(ids)) if padding_side == "right" else slice(-len(ids), None)] = ids
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
        """The pieces of a text without special tokens; behind an unknown token, so that its first space is kept."""
        text = text.lower() if self._lower else text
        text = " ".join(text.translate(_NO_PUNCTUATION).split())
        return self._model.encode(self._unknown + text, out_type=str)[self._unknown_length :]


def require_embeddings(
    tokenize: JsonTokenizer | SentencePieceTokenizer, rows: int, place: str
) -> None:
    """Raise InputError where a network of so many embeddings has none for a token."""
    if (needed := tokenize.rows) > rows:
        raise InputError(f"{place}: {needed:,} tokens, but the network has {rows:,} embeddings")


@contextmanager
def _value_errors() -> Iterator[None]:
    """Makes whatever the tokenizers package raises over a file a ValueError: it has no narrower type, and Rust may panic."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(str(error)) from error


def _require_room(context_length: int, added: int) -> None:
    if added >= context_length:
        raise ValueError(
            f"it adds {added} tokens to every caption, and the network's context has {context_length} in all"
        )


def _pad(reader: JsonTokenizer | SentencePieceTokenizer, pad: Pad) -> tuple[int, str]:
    number, token = pad
    if number is None:
        number = reader.id_of(token)
    if number is None:
        raise ValueError(f"it has no token {token!r}, the pad_token")
    return number, token


def _cleaner(name: str | None) -> Callable[[str], str]:
    return (lambda text: text) if name is None else CLEANERS[name]
