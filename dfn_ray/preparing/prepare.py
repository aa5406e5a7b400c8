"""From samples to the networks' inputs, in CPU tasks: rules, decoding, resizing, tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Captions, Decode, Rules
from dfn_ray.images.decode import decode_images
from dfn_ray.images.isolation import FORKED, Workspace
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network.tokenizer import TokenizerSpec, count_cut_captions, tokenize
from dfn_ray.on_ray.cells import Cell, array_column
from dfn_ray.preparing.rules import SizeRule, reject_caption
from dfn_ray.preparing.several_captions import (
    COUNTS,
    counting_captions,
    encoded_captions,
    has_several_captions,
    nested,
    reject_captions,
)
from dfn_ray.preparing.statuses import mark, undecided_rows, with_bytes_of
from dfn_ray.schema import SIZE_FIELDS, Note


@dataclass(frozen=True)
class NetworkInputs:
    """The inputs of one network, as indices into the transforms and tokenizers of a Preparation."""

    transform: int
    tokenizer: int


@dataclass(frozen=True)
class Preparation:
    """Everything `prepare` needs; networks share one decode and equal pixels and tokens."""

    rules: Rules
    decode: Decode
    transforms: tuple[ImageTransform, ...]
    tokenizers: tuple[TokenizerSpec, ...]
    captions: Captions = Captions()  # noqa: RUF009  frozen
    """Settings for samples with several captions."""


def pixels_column(transform: int) -> str:
    """Name of the inputs column with uint8 pixels (H, W, 3) of a transform."""
    return f"pixels_{transform}"


def tokens_column(tokenizer: int) -> str:
    """Name of the inputs column with int32 tokens (context_length,) of a tokenizer.

    For several captions it is a list of them.
    """
    return f"tokens_{tokenizer}"


def prepare(cell: Cell, *, preparation: Preparation, workspace: Workspace = FORKED) -> Cell:
    """The cell with rejected and failed samples marked, image sizes, and inputs of the others.

    Rejected and failed samples lose their bytes.
    """
    samples = _reject_captions(cell.samples, preparation)
    rows = undecided_rows(samples)
    taken = samples.take(pa.array(rows))
    decoded = decode_images(
        [value.as_buffer() for value in taken["image"]],
        preparation.transforms,
        mode=preparation.decode.mode,
        on_truncated=preparation.decode.on_truncated,
        max_pixels=preparation.decode.max_pixels,
        timeout_s=preparation.decode.timeout_s,
        accept=SizeRule(preparation.rules, taken["metadata"].to_pylist()),
        workspace=workspace,
    )
    samples = mark(samples, rows, decoded.reason)
    for field, sizes in zip(SIZE_FIELDS, (decoded.width, decoded.height), strict=True):
        column = np.zeros(len(samples), dtype=np.int32)
        column[rows] = sizes
        samples = samples.append_column(field, pa.array(column, mask=column == 0))
    if len(undecided_rows(samples)) < len(samples):
        samples = with_bytes_of(samples, pc.is_null(samples["status"]))

    passed = np.array([reason is None for reason in decoded.reason], dtype=bool)
    captions = taken["text"].filter(pa.array(passed)).to_pylist()
    columns = {"row": pa.array(rows[passed])}
    for index, pixels in enumerate(decoded.pixels):
        columns[pixels_column(index)] = array_column(_moved_together(pixels, passed))
    cut = _add_tokens(columns, captions, preparation, has_several_captions(samples))
    chunk = cell.chunk.with_notes({**decoded.notes, Note.CAPTION_CUT.value: cut})
    return replace(cell, chunk=chunk, samples=samples, inputs=pa.table(columns))


def _moved_together(pixels_NHWC: np.ndarray, passed_N: np.ndarray) -> np.ndarray:
    """The pixels of the images that passed, in the same memory."""
    rows = np.flatnonzero(passed_N)
    for new, old in enumerate(rows.tolist()):
        if new != old:
            pixels_NHWC[new] = pixels_NHWC[old]
    return pixels_NHWC[: len(rows)]


def _add_tokens(
    columns: dict[str, pa.Array], captions: list[Any], preparation: Preparation, several: bool
) -> int:
    """Adds tokens to the inputs, and the mask of several captions; returns how many were cut."""
    lengths: list[int] = []
    if several:
        captions = encoded_captions(captions, preparation.captions)
        lengths = list(map(len, captions))
        counts = [
            counting_captions(own, preparation.rules, preparation.captions) for own in captions
        ]
        columns[COUNTS] = pa.array(counts, pa.large_list(pa.bool_()))
        captions = [text for own in captions for text in own]
    for index, tokenizer in enumerate(preparation.tokenizers):
        tokens = array_column(tokenize(tokenizer, captions))
        columns[tokens_column(index)] = nested(tokens, lengths) if several else tokens
    return count_cut_captions(captions)


def _reject_captions(samples: pa.Table, preparation: Preparation) -> pa.Table:
    rules = preparation.rules
    # Also without any rule: a condition on today's settings would skip a rule that is added later,
    # and the loop takes less than 1 ms per chunk.
    rows = undecided_rows(samples)
    texts = samples["text"].take(pa.array(rows)).to_pylist()
    if has_several_captions(samples):
        reasons = [reject_captions(own, rules, preparation.captions) for own in texts]
    else:
        reasons = [reject_caption(text, rules) for text in texts]
    return mark(samples, rows, reasons)
