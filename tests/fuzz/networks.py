"""Target: network folders. Weights of valid ones are as written; every mistake is an InputError."""

from __future__ import annotations

import copy
import functools
import io
import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch

from dfn_ray.config import Network
from dfn_ray.errors import InputError
from dfn_ray.network.packed import pack_network
from dfn_ray.testing.random_networks import TINY
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import mutate

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_PREPROCESS = (
    {},
    {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.3, 0.4]},
    {"size": 32, "resize_mode": "squash"},
    {"interpolation": "bilinear"},
    {"resize_mode": "longest", "fill_color": 7},
    {"size": [32, 32], "mode": "RGB"},
)
_WRONG = (
    None,
    True,
    -1,
    0,
    1,
    3,
    1.5,
    "32",
    "",
    [],
    [0.5],
    [1, 2, 3, 4],
    {},
    {"a": 1},
    "\ud800",
    [[0.1]] * 3,
    2**63,
    1e400,
    "squash",
)


def make(rng: Random) -> Case:
    """A folder that is valid in one of its forms, or has a mistake in its config or weights."""
    config = {"model_cfg": copy.deepcopy(TINY), "preprocess_cfg": rng.choice(_PREPROCESS)}
    files = _weights(rng)
    pick = rng.random()
    note = f"{', '.join(files)}, {config['preprocess_cfg']}"
    if pick < 0.4:
        files[_CONFIG] = rng.choice((b"", b"\n ", b"\xef\xbb\xbf")) + json.dumps(config).encode()
    elif pick < 0.75:
        files[_CONFIG], what = _wrong_config(rng, config)
        note = f"{note}, {what}"
    else:
        files[_CONFIG] = json.dumps(config).encode()
        name = rng.choice([name for name in files if name != _CONFIG])
        region = (0, min(3000, len(files[name]))) if rng.random() < 0.7 else None
        damage = mutate(rng, files[name], region)
        files[name], note = damage.data, f"{note}, {name}: {damage.note}"

    def check(folder: Path) -> Counter[str]:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            network = pack_network(Network(model=f"local-dir:{folder}"))
        except InputError as error:
            require(pick >= 0.4, "a valid network is refused", note, str(error))
            require(str(error).strip(), "a refusal without a word")
            return Counter(["refused"])
        if pick < 0.4:
            _check_same(network, config["preprocess_cfg"])
        return Counter(["ok"])

    return Case(valid=pick < 0.4, note=note, files=files, check=check)


@functools.cache
def _state() -> dict[str, torch.Tensor]:
    """Random weights of the tiny network, the same in every process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return {name: tensor.detach() for name, tensor in open_clip.CLIP(**TINY).state_dict().items()}


@functools.cache
def _encoded(form: str) -> bytes:
    """The weights in a file of one form."""
    state = _state()
    if form == "safetensors":
        return safetensors.torch.save(state)
    wrapped: dict[str, Any] = {
        "torch": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "module": {f"module.{name}": tensor for name, tensor in state.items()},
        "compiled": {
            "state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
        },
        "compiled first": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    }[form]
    file = io.BytesIO()
    torch.save(wrapped, file)
    return file.getvalue()


def _weights(rng: Random) -> dict[str, bytes]:
    if rng.random() < 0.5:
        return {
            rng.choice((_WEIGHTS, "model.safetensors", "other.safetensors")): _encoded(
                "safetensors"
            )
        }
    form = rng.choice(("torch", "state_dict", "module", "compiled", "compiled first"))
    return {rng.choice(("open_clip_pytorch_model.bin", "model.pth", "epoch_3.pt")): _encoded(form)}


def _wrong_config(rng: Random, config: dict[str, Any]) -> tuple[bytes, str]:
    """A config with a value of another kind, a key missing or added, or damaged text."""
    if rng.random() < 0.3:
        damage = mutate(rng, json.dumps(config).encode())
        return damage.data, f"config: {damage.note}"
    sections = [
        config,
        config["model_cfg"],
        config["model_cfg"]["vision_cfg"],
        config["model_cfg"]["text_cfg"],
    ]
    config["preprocess_cfg"] = {
        "size": 32,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "fill_color": 0,
    }
    section = rng.choice([*sections, config["preprocess_cfg"]])
    key = rng.choice(
        [
            *section,
            "unknown",
            "quick_gelu",
            "hf_model_name",
            "timm_model_name",
            "hf_tokenizer_name",
            "pool_type",
        ]
    )
    if rng.random() < 0.2:
        section.pop(key, None)
        return json.dumps(config).encode(), f"without {key}"
    section[key] = rng.choice(_WRONG)
    return json.dumps(config).encode(), f"{key} = {section[key]!r}"


def _check_same(network: Any, preprocess: dict[str, Any]) -> None:
    state = _state()
    require(set(network.state) == set(state), "weights are lost", set(state) ^ set(network.state))
    for name, array in network.state.items():
        require(np.array_equal(array, state[name].numpy()), "weights have other values", name)
    transform = network.transform
    require(transform.size == (32, 32), "another size", transform.size)
    require(
        list(transform.mean) == preprocess.get("mean", list(transform.mean)),
        "another mean",
        transform.mean,
    )
    require(
        transform.resize_mode == preprocess.get("resize_mode", "shortest"),
        "another resize",
        transform.resize_mode,
    )
    require(
        transform.fill_color == preprocess.get("fill_color", 0),
        "another fill",
        transform.fill_color,
    )


TARGET = Target("network", 1, make)
