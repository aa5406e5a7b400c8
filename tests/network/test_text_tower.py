"""Cropping does not change embeddings, and is refused where it would."""

from __future__ import annotations

import open_clip
import pytest
import torch

from dfn_ray.network import text_tower
from dfn_ray.network.tokenizer import TokenizerSpec
from tests.network.conftest import CAPTIONS, KINDS

CLIP = TokenizerSpec(context_length=77)


def model_of(folder):
    return open_clip.create_model(f"local-dir:{folder}").eval()


CROPPED = {"vit", "quick_gelu", "non_square", "resnet", "custom_text", "eos_pool", "timm"}


@pytest.mark.parametrize("kind", KINDS)
def test_only_causal_towers_read_at_the_end_token_are_cropped(folders, kind):
    assert text_tower.can_crop_text(model_of(folders(kind))) == (kind in CROPPED)


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"pool_type": "first"},
        {"pool_type": "last"},
        {"pool_type": "none"},
        {"no_causal_mask": True},
    ],
    ids=str,
)
def test_towers_that_are_read_elsewhere_or_see_ahead_are_not_cropped(text_cfg):
    cfg = {**KINDS["custom_text"], "text_cfg": {**KINDS["custom_text"]["text_cfg"], **text_cfg}}
    del cfg["custom_text"]
    assert not text_tower.can_crop_text(open_clip.CustomTextCLIP(**cfg))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_cropped_embeddings_equal_the_full_ones(folders, kind):
    model = model_of(folders(kind))
    tokens_NL = open_clip.get_tokenizer(f"local-dir:{folders(kind)}")(CAPTIONS)
    full_ND = model.encode_text(tokens_NL, normalize=False)
    length_N = text_tower.lengths(model, tokens_NL.numpy())
    assert (length_N.min() < tokens_NL.shape[1]) == (kind in CROPPED)
    for row, length in enumerate(length_N):
        cropped_D = text_tower.encode_text(model, tokens_NL[row : row + 1, :length])[0]
        assert (cropped_D - full_ND[row]).abs().max() < 1e-5


@torch.inference_mode()
def test_cropping_a_two_way_tower_would_change_its_embeddings(folders):
    """The reason for `can_crop_text`: a crop that is harmless for CLIP is wrong for SigLIP."""
    model = model_of(folders("siglip"))
    tokens_NL = open_clip.get_tokenizer(f"local-dir:{folders('siglip')}")(
        ["a dog", "a photo of a house"]
    )
    full_ND = model.encode_text(tokens_NL)
    assert (model.encode_text(tokens_NL[:, :8]) - full_ND).abs().max() > 1e-3
