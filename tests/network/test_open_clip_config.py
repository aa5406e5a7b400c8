"""Mistakes in a network's config raise InputError with file, key and value, before scoring."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import open_clip
import pytest

from dfn_ray import config
from dfn_ray.errors import InputError
from dfn_ray.network.open_clip_config import read_network_config
from dfn_ray.network.packed import pack_network
from tests.network.conftest import KINDS

TINY = copy.deepcopy(KINDS["vit"])


def write(folder: Path, values) -> Path:
    path = folder / "open_clip_config.json"
    data = values if isinstance(values, bytes) else json.dumps(values).encode()
    path.write_bytes(data)
    return path


def changed(place: str, value) -> dict:
    """A valid config with one value replaced."""
    values = {"model_cfg": copy.deepcopy(TINY), "preprocess_cfg": {"size": 32}}
    *parents, key = place.split(".")
    target = values
    for parent in parents:
        target = target[parent]
    target[key] = value
    return values


def load(folder: Path):
    return pack_network(config.Network(model=f"local-dir:{folder}", random_weights_seed=0))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("preprocess_cfg.mean", [0.5, 0.5]),
        ("preprocess_cfg.mean", "0.5"),
        ("preprocess_cfg.std", [0.1] * 4),
        ("preprocess_cfg.std", [0.1, 0.0, 0.1]),
        ("preprocess_cfg.std", -1),
        ("preprocess_cfg.std", 1e-320),
        ("preprocess_cfg.mean", [None, 0.5, 0.5]),
        ("preprocess_cfg.interpolation", "lanczos"),
        ("preprocess_cfg.resize_mode", "stretch"),
        ("preprocess_cfg.mode", "L"),
        ("preprocess_cfg.size", 0),
        ("preprocess_cfg.size", [32, 32, 32]),
        ("preprocess_cfg.fill_color", 256),
        ("model_cfg.embed_dims", 512),
        ("model_cfg.embed_dim", "512"),
        ("model_cfg.embed_dim", 0),
        ("model_cfg.quick_gelu", "yes"),
        ("model_cfg.init_logit_scale", "1"),
        ("model_cfg.vision_cfg.widht", 64),
        ("model_cfg.vision_cfg.width", "64"),
        ("model_cfg.vision_cfg.width", 2**40),
        ("model_cfg.vision_cfg.layers", 10**9),
        ("model_cfg.vision_cfg.image_size", [32, "32"]),
        ("model_cfg.text_cfg.layers", 2.5),
        ("model_cfg.text_cfg.heads", None),
        ("model_cfg.text_cfg.vocab_size", [49408]),
        ("model_cfg.text_cfg", "text"),
        ("model_cfg.vision_cfg", None),
    ],
)
def test_a_mistake_names_the_file_the_key_and_the_value(tmp_path, place, value):
    path = write(tmp_path, changed(place, value))
    with pytest.raises(InputError) as caught:
        read_network_config(path)
    message = str(caught.value)
    assert str(path) in message
    assert place in message
    assert json.dumps(value)[:60] in message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"model_cfg": []}',
        b'{"model_cfg": {"embed_dim": NaN}}',
        b'{"model_cfg": {"embed_dim": 1e999}}',
        b"\xff\xfe{}",
        b"[" * 100_000,
    ],
)
def test_what_is_no_config_names_the_file(tmp_path, data):
    path = write(tmp_path, data)
    with pytest.raises(InputError, match="open_clip_config"):
        read_network_config(path)


def test_two_towers_of_sane_numbers_may_still_be_too_large_together(tmp_path):
    values = changed("model_cfg.text_cfg.width", 2**20)
    values["model_cfg"]["text_cfg"]["layers"] = 100
    with pytest.raises(InputError, match="parameters"):
        read_network_config(write(tmp_path, values))


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    values = changed("preprocess_cfg.size", 32)
    data = b"\xef\xbb\xbf" + json.dumps(values).encode()
    assert read_network_config(write(tmp_path, data)) == (TINY, {"size": 32}, None)


@pytest.mark.parametrize("value", [0.25, [0.25], [0.25] * 3])
def test_one_mean_counts_for_all_channels(tmp_path, value):
    write(tmp_path, changed("preprocess_cfg.mean", value))
    assert load(tmp_path).transform.mean == (0.25, 0.25, 0.25)


def test_the_configs_of_open_clip_itself_are_accepted(tmp_path):
    for name in open_clip.list_models():
        values = {
            "model_cfg": open_clip.get_model_config(name),
            "preprocess_cfg": {"size": [224, 224]},
        }
        assert read_network_config(write(tmp_path, values))[0] == values["model_cfg"], name


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model_cfg.text_cfg.heads", 7),
        ("model_cfg.vision_cfg.patch_size", 0),
        ("model_cfg.vision_cfg.timm_model_name", "no_such_network"),
        ("model_cfg.vision_cfg.act_kwargs", {"no": 1}),
    ],
)
def test_what_open_clip_cannot_build_is_a_mistake_of_the_config(tmp_path, place, value):
    write(tmp_path, changed(place, value))
    with pytest.raises(InputError, match="cannot be built"):
        load(tmp_path)


VALUES = [None, True, -1, 0, 3, 2.5, 10**30, "", "64", "x" * 999, [], [1, 2], {}, {"a": 1}]


def test_mutated_configs_load_or_are_mistakes_of_the_user(tmp_path):
    rng = random.Random(0)
    small = copy.deepcopy(TINY)
    small["text_cfg"] |= {"width": 8, "layers": 1, "heads": 2}
    small["vision_cfg"] |= {"width": 32, "layers": 1}
    refused = 0
    for _ in range(60):
        values = {"model_cfg": copy.deepcopy(small), "preprocess_cfg": {"size": 32, "mean": 0.5}}
        target = rng.choice(
            [values, values["model_cfg"], values["preprocess_cfg"]]
            + [values["model_cfg"][tower] for tower in ("text_cfg", "vision_cfg")]
        )
        key = rng.choice([*target, "another"])
        target[key] = rng.choice(VALUES)
        write(tmp_path, values)
        try:
            load(tmp_path)
        except InputError:
            refused += 1
    assert 20 < refused < 60
