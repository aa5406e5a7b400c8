"""Names of weights in transformers' and open_clip's layout, without torch.

A group is a run of numbers that is one tensor or several in each layout: open_clip fuses query, key
and value, which are three tensors in transformers; timm splits the query of SigLIP's pooling from
key and value. `theirs` are names in transformers, `ours` names in open_clip.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dfn_ray.errors import InputError, shortened

BUFFERS = frozenset(f"{tower}.embeddings.position_ids" for tower in ("text_model", "vision_model"))
"""Buffers that older versions of transformers saved with the weights: 0, 1, 2 and so on."""


@dataclass(frozen=True)
class TensorGroup:
    """Tensors of transformers and of open_clip that are equal when joined along the first axis."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    transposed: bool = False
    shape: tuple[int, ...] | None = None
    """Shape in transformers, if it differs from the one in open_clip for the same numbers."""

    def shapes(self, module_shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """Returns the shape of each tensor in transformers, for a module with these shapes."""
        if self.shape is not None:
            return self.shape
        first, *others = (tuple(module_shapes[name]) for name in self.ours)
        if self.transposed:
            return first[::-1]
        rows = sum(shape[0] for shape in (first, *others)) if first else 0
        return (rows // len(self.theirs), *first[1:]) if first else ()


def tensor_groups(model_cfg: Mapping[str, Any]) -> tuple[TensorGroup, ...]:
    """Returns the groups of a network whose config both layouts can express."""
    text, vision = model_cfg["text_cfg"], model_cfg["vision_cfg"]
    prefix = "text." if model_cfg["custom_text"] else ""
    siglip = "siglip_vit" in vision
    image = _siglip_image(vision) if siglip else _clip_image(vision["layers"])
    scalar = (1,) if siglip or model_cfg.get("nonscalar_logit_scale") else ()
    groups = [
        TensorGroup(("logit_scale",), ("logit_scale",), shape=(1,) if siglip else ()),
        _same("text_model.embeddings.token_embedding.weight", f"{prefix}token_embedding.weight"),
        _same("text_model.embeddings.position_embedding.weight", f"{prefix}positional_embedding"),
        *_pair("text_model.final_layer_norm", f"{prefix}ln_final"),
        *_blocks("text_model.encoder.layers", f"{prefix}transformer.resblocks", text["layers"]),
        *image,
    ]
    if siglip:
        groups.append(TensorGroup(("logit_bias",), ("logit_bias",), shape=scalar))
        groups += _pair("text_model.head", f"{prefix}text_projection")
    else:
        projection = (("text_projection.weight",), (f"{prefix}text_projection",))
        groups.append(TensorGroup(*projection, transposed=True))
    return tuple(groups)


def _same(theirs: str, ours: str) -> TensorGroup:
    return TensorGroup((theirs,), (ours,))


def _pair(theirs: str, ours: str) -> list[TensorGroup]:
    return [_same(f"{theirs}.{part}", f"{ours}.{part}") for part in ("weight", "bias")]


class _BlockNames(NamedTuple):
    """Names of the parts of a transformer block in open_clip or timm."""

    qkv: str
    """Prefix of `weight` and `bias`."""
    out: str
    norm1: str
    norm2: str
    fc1: str
    fc2: str


_OPEN_CLIP_BLOCK = _BlockNames(
    "attn.in_proj_", "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"
)
_TIMM_BLOCK = _BlockNames("attn.qkv.", "attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2")


def _blocks(
    theirs: str, ours: str, layers: int, names: _BlockNames = _OPEN_CLIP_BLOCK
) -> Iterator[TensorGroup]:
    for layer in range(layers):
        our, their = f"{ours}.{layer}", f"{theirs}.{layer}"
        for part in ("weight", "bias"):
            split = tuple(f"{their}.self_attn.{name}_proj.{part}" for name in "qkv")
            yield TensorGroup(split, (f"{our}.{names.qkv}{part}",))
        yield from _pair(f"{their}.self_attn.out_proj", f"{our}.{names.out}")
        yield from _pair(f"{their}.layer_norm1", f"{our}.{names.norm1}")
        yield from _pair(f"{their}.layer_norm2", f"{our}.{names.norm2}")
        yield from _pair(f"{their}.mlp.fc1", f"{our}.{names.fc1}")
        yield from _pair(f"{their}.mlp.fc2", f"{our}.{names.fc2}")


def _clip_image(layers: int) -> Iterator[TensorGroup]:
    embeddings = "vision_model.embeddings"
    yield _same(f"{embeddings}.class_embedding", "visual.class_embedding")
    yield _same(f"{embeddings}.patch_embedding.weight", "visual.conv1.weight")
    yield _same(f"{embeddings}.position_embedding.weight", "visual.positional_embedding")
    yield from _pair("vision_model.pre_layrnorm", "visual.ln_pre")  # sic in transformers
    yield from _pair("vision_model.post_layernorm", "visual.ln_post")
    yield from _blocks("vision_model.encoder.layers", "visual.transformer.resblocks", layers)
    yield TensorGroup(("visual_projection.weight",), ("visual.proj",), transposed=True)


def _siglip_image(vision: Mapping[str, Any]) -> Iterator[TensorGroup]:
    vit = vision["siglip_vit"]
    side = vision["image_size"] // vit["patch_size"]
    theirs, ours = "vision_model", "visual.trunk"
    yield from _pair(f"{theirs}.embeddings.patch_embedding", f"{ours}.patch_embed.proj")
    yield TensorGroup(
        (f"{theirs}.embeddings.position_embedding.weight",),
        (f"{ours}.pos_embed",),
        shape=(side * side, vit["width"]),
    )
    yield from _blocks(f"{theirs}.encoder.layers", f"{ours}.blocks", vit["layers"], _TIMM_BLOCK)
    yield from _pair(f"{theirs}.post_layernorm", f"{ours}.norm")
    pool, head = f"{ours}.attn_pool", f"{theirs}.head"
    yield _same(f"{head}.probe", f"{pool}.latent")
    for part in ("weight", "bias"):
        fused = (f"{head}.attention.in_proj_{part}",)
        yield TensorGroup(fused, (f"{pool}.q.{part}", f"{pool}.kv.{part}"))
    yield from _pair(f"{head}.attention.out_proj", f"{pool}.proj")
    yield from _pair(f"{head}.layernorm", f"{pool}.norm")
    yield from _pair(f"{head}.mlp.fc1", f"{pool}.mlp.fc1")
    yield from _pair(f"{head}.mlp.fc2", f"{pool}.mlp.fc2")


def require_all(names: Collection[str], groups: Sequence[TensorGroup], place: str) -> None:
    """Raises InputError that names tensors of the groups that are missing, and others."""
    known = {name for group in groups for name in group.theirs}
    missing, others = sorted(known - set(names)), sorted(set(names) - known - BUFFERS)
    if missing or others:
        counts = [
            f"{len(some)} {what} ({first_names(some)})"
            for what, some in (("missing", missing), ("left over", others))
            if some
        ]
        raise InputError(
            f"{place}: not the weights that config.json describes: {', '.join(counts)}. Take both "
            "files from the same network"
        )


def first_names(names: Sequence[str]) -> str:
    """The first names of a list, for messages."""
    return (
        "; ".join(shortened(name, 160) for name in names[:3]) + ("; ..." if names[3:] else "")
        or "none"
    )
