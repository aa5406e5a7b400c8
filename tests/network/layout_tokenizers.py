"""Tiny tokenizers of transformers, one of each kind in its layout, and captions for them."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from dfn_ray.network.byte_pairs import tokens_and_merges

CONTEXT = 20
BPE_TOKENS = 512 + 300 + 2
"""A vocabulary of bytes, bytes at the end of a word, merges, start and end."""
CAPTIONS = [
    "a dog",
    "",
    "A Dog's photo, isn't it? They'll   see 12 dogs!",
    "ein großer Hund, Fuß und Öl",
    "un café déjà vu à Paris",
    "犬の写真、北京の猫",
    "собака на улице Москвы",
    "كلب في الشارع",
    "a 🐶 and a 👩‍👩‍👧 with 🇫🇷",
    "&lt;b&gt;fish &amp;amp; chips&lt;/b&gt; &eacute;",
    "caf\u0065\u0301 decomposed, Ⅷ, ﬁsh",
    "tabs\tand\nlines\r\n and\u3000wide spaces",
    "word " * 2000,
    # In a unigram model, a word that is cut by the bound of 4,096 characters has other tokens.
    "x" * 4000,
    "</s> in the middle <unk> and <|endoftext|> too <eos>",
    "ΣΊΣΥΦΟΣ İstanbul",
    "▁under▁lined▁",
]


def clip_tokenizer() -> Any:
    tokens, merges = tokens_and_merges()
    vocabulary = {token: n for n, token in enumerate(tokens[: BPE_TOKENS - 2])}
    vocabulary |= {"<|startoftext|>": BPE_TOKENS - 2, "<|endoftext|>": BPE_TOKENS - 1}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges[:300], model_max_length=CONTEXT
    )


SENTENCES = [*CAPTIONS[:-1], "the quick brown fox jumps over the lazy dog and a cat " * 3] * 3


@functools.cache
def spiece() -> bytes:
    """A sentencepiece model like SigLIP's: an end token, which also pads, and an unknown token."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower()[:300] for text in SENTENCES]),
        model_writer=buffer,
        vocab_size=230,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return buffer.getvalue()


def siglip_tokenizer(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(spiece())
    return SiglipTokenizer(
        str(folder / "spiece.model"), model_max_length=CONTEXT, model_input_names=["input_ids"]
    )


def unigram_tokenizer() -> Any:
    """A SigLIP tokenizer in one file, with lower case and removal of punctuation in its rules."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
        model_input_names=["input_ids"],
    )


def gemma_tokenizer(padding_side: str = "right", kind: Any = Siglip2Tokenizer) -> Any:
    """A tokenizer like SigLIP 2's: byte pairs over whole texts, byte fallback, lower case."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz.,'", "A"]
    merges = [("▁", "a"), ("d", "o"), ("do", "g"), ("▁a", "▁")]
    tokens = [*special, *(f"<0x{n:02X}>" for n in range(256)), *letters, *map("".join, merges)]
    tokenizer = kind(
        vocab={token: n for n, token in enumerate(tokens)},
        merges=merges,
        padding_side=padding_side,
        model_max_length=CONTEXT,
        model_input_names=["input_ids"],
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return tokenizer
