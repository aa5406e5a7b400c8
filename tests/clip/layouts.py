"""Tiny networks, tokenizers and processors of transformers, saved by transformers itself, and what it makes of samples."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import transformers
from PIL import Image
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from dfn_ray.clip.byte_pairs import tokens_and_merges
from dfn_ray.clip.network import FrozenNetwork, build, load_network
from dfn_ray.clip.tokenizer import tokenize
from tests.clip.conftest import photo, spec

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

CONTEXT = 20
BPE_TOKENS = 512 + 300 + 2
"""Bytes, bytes at the end of a word, merges, start and end."""
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
    "x"
    * 4000,  # a word that the reader's bound of 4,096 characters cuts has other tokens in a unigram model
    "</s> in the middle <unk> and <|endoftext|> too <eos>",
    "ΣΊΣΥΦΟΣ İstanbul",
    "▁under▁lined▁",
]


@functools.cache
def images() -> tuple[Image.Image, ...]:
    """Pictures of several sizes, odd ones among them, and real ones of the demo's pool."""
    made = [photo(*size) for size in ((451, 333), (333, 451), (64, 64), (300, 40), (31, 57))]
    folder = Path(__file__).parents[2] / "dfn_ray/demo/data"
    real: list[Image.Image] = []
    for path in sorted(folder.rglob("*.tar"))[:1]:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith((".jpg", ".webp", ".png")) and len(real) < 4:
                    file = tar.extractfile(member)
                    assert file is not None
                    real.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
    assert real
    return (*made, *real)


def clip_tokenizer() -> Any:
    tokens, merges = tokens_and_merges()
    vocabulary = {token: n for n, token in enumerate(tokens[: BPE_TOKENS - 2])}
    vocabulary |= {"<|startoftext|>": BPE_TOKENS - 2, "<|endoftext|>": BPE_TOKENS - 1}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges[:300], model_max_length=CONTEXT
    )


def clip(folder: Path, text: dict, vision: dict, *, dim: int = 24, seed: int = 0) -> Any:
    """A CLIP with random weights, saved with its processor and tokenizer."""
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": BPE_TOKENS,
            "hidden_size": 32,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": BPE_TOKENS - 2,
            "eos_token_id": BPE_TOKENS - 1,
            "pad_token_id": BPE_TOKENS - 1,
            **text,
        },
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 16,
            **vision,
        },
        projection_dim=dim,
    )
    side = config.vision_config.image_size
    processor = transformers.CLIPProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side),
        tokenizer=clip_tokenizer(),
    )
    return saved(transformers.CLIPModel, config, processor, folder, seed)


def siglip(folder: Path, text: dict, vision: dict, tokenizer: Any, *, seed: int = 0) -> Any:
    """A SigLIP with random weights, saved with its processor and tokenizer."""
    config = transformers.SiglipConfig(
        text_config={
            "vocab_size": 600,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": 0,
            "eos_token_id": 1,
            **text,
        },
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 16,
            **vision,
        },
    )
    side = config.vision_config.image_size
    processor = transformers.SiglipProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": side, "width": side}),
        tokenizer=tokenizer,
    )
    return saved(transformers.SiglipModel, config, processor, folder, seed)


def saved(kind: Any, config: Any, processor: Any, folder: Path, seed: int) -> Any:
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.08)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


SENTENCES = [*CAPTIONS[:-1], "the quick brown fox jumps over the lazy dog and a cat " * 3] * 3


@functools.cache
def spiece() -> bytes:
    """A sentencepiece model as SigLIP's: an end token, which also pads, and an unknown one."""
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
    """A SigLIP tokenizer in one file, its lower case and missing punctuation among its rules."""
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
    """SigLIP 2's: byte pairs over whole texts, bytes where there is no token, case removed."""
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


@dataclass(frozen=True)
class Scores:
    images: torch.Tensor
    texts: torch.Tensor

    @property
    def all(self) -> torch.Tensor:
        return self.images @ self.texts.T


def by_transformers(folder: Path, captions: list[str] | None = None) -> Scores:
    """The embeddings of all pictures and captions by transformers alone: its model, processor and tokenizer."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    clip_like = kind == "clip"
    model = (transformers.CLIPModel if clip_like else transformers.SiglipModel).from_pretrained(
        folder
    )
    make = CLIPImageProcessorPil if clip_like else SiglipImageProcessorPil
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = tokenizer(
        captions or CAPTIONS,
        padding="max_length",
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    pixels = make.from_pretrained(folder)(images=list(images()), return_tensors="pt")
    with torch.inference_mode():
        found = model.eval()(pixel_values=pixels["pixel_values"], **words)
    return Scores(found.image_embeds, found.text_embeds)


def by_dfn_ray(
    folder: Path | FrozenNetwork, captions: list[str] | None = None, **settings: Any
) -> Scores:
    """The same by dfn_ray, which reads the folder."""
    frozen = folder if isinstance(folder, FrozenNetwork) else load_network(spec(folder, **settings))
    network = build(frozen)
    pixels = np.stack([frozen.transform.pixels_HWC(image, image.size) for image in images()])
    tokens = tokenize(frozen.tokenizer, captions or CAPTIONS)
    return Scores(
        network.embed_all_images(pixels, batch_size=8).clone(),
        network.embed_all_texts(tokens, batch_size=8).clone(),
    )


def difference(one: Scores, other: Scores) -> float:
    """The largest, over embeddings and the scores of every picture with every caption."""
    pairs = (
        (one.images, other.images),
        (one.texts, other.texts),
        (one.all, other.all),
    )
    return max((a - b).abs().max().item() for a, b in pairs)
