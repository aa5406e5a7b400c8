"""A network is resolved as in open_clip, and its fingerprint changes exactly with its scores."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import huggingface_hub
import numpy as np
import open_clip
import pytest

from dfn_ray import config
from dfn_ray.errors import InputError
from dfn_ray.network.packed import build, pack_network
from tests.network.conftest import KINDS, network_folder, photo, spec


def edited(folders, tmp_path, edit, kind="vit"):
    """A copy of a network's folder with a modified config."""
    folder = tmp_path / "edited"
    shutil.copytree(folders(kind), folder, dirs_exist_ok=True)
    values = json.loads((folder / "open_clip_config.json").read_text())
    edit(values)
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    return folder


def fingerprint(folder, **settings):
    return pack_network(spec(folder, **settings)).fingerprint()


def test_the_fingerprint_is_json_and_ignores_name_and_place(folders, tmp_path):
    folder = folders("vit")
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    one = fingerprint(folder)
    assert one == json.loads(json.dumps(one))
    assert one == fingerprint(moved, name="another")
    assert one == fingerprint(
        folder, resize_mode="shortest", interpolation="bicubic", quick_gelu=False
    )


CHANGES = {
    "quick_gelu": {"quick_gelu": True},
    "resize_mode": {"resize_mode": "squash"},
    "interpolation": {"interpolation": "bilinear"},
    "precision": {"precision": "bf16"},
}


@pytest.mark.parametrize("settings", CHANGES.values(), ids=CHANGES)
def test_the_fingerprint_changes_with_each_setting_of_the_recipe(folders, settings):
    assert fingerprint(folders("vit")) != fingerprint(folders("vit"), **settings)


EDITS = {
    "mean": lambda v: v["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5]),
    "std": lambda v: v["preprocess_cfg"].update(std=[0.5, 0.5, 0.5]),
    "fill": lambda v: v["preprocess_cfg"].update(fill_color=127),
    "heads": lambda v: v["model_cfg"]["text_cfg"].update(heads=4),
    "quick_gelu": lambda v: v["model_cfg"].update(quick_gelu=True),
    "tokenizer": lambda v: v["model_cfg"]["text_cfg"].update(
        tokenizer_kwargs={"clean": "canonicalize"}
    ),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_the_fingerprint_changes_with_each_part_of_the_config(folders, tmp_path, edit):
    assert fingerprint(folders("vit")) != fingerprint(edited(folders, tmp_path, edit))


def test_the_fingerprint_changes_with_the_weights(folders):
    def seeded(seed):
        return fingerprint(folders("vit"), random_weights_seed=seed)

    assert seeded(1) == seeded(1)
    assert len({json.dumps(fp) for fp in (seeded(1), seeded(2), fingerprint(folders("vit")))}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_transform_is_the_one_open_clip_attaches(folders, tmp_path, kind):
    preprocess = {"mean": [0.5, 0.4, 0.3], "interpolation": "bilinear", "resize_mode": "longest"}
    folder = edited(folders, tmp_path, lambda v: v.update(preprocess_cfg=preprocess), kind)
    got = pack_network(spec(folder)).transform
    wanted = open_clip.transform.PreprocessCfg(
        **open_clip.create_model(f"local-dir:{folder}").visual.preprocess_cfg
    )
    size = wanted.size
    assert got.size == ((size, size) if isinstance(size, int) else tuple(size))
    assert (got.resize_mode, got.interpolation) == (wanted.resize_mode, wanted.interpolation)
    assert (got.mean, got.std) == (tuple(wanted.mean), tuple(wanted.std))


def test_interpolation_is_ignored_exactly_where_open_clip_ignores_it(folders, tmp_path):
    folder = edited(
        folders,
        tmp_path,
        lambda v: v.update(preprocess_cfg={"interpolation": "bilinear"}),
        "non_square",
    )
    _, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{folder}", image_mean=(0.0,) * 3, image_std=(1.0,) * 3
    )
    image = photo(90, 70)
    wanted_HWC = (preprocess(image) * 255).round().byte().permute(1, 2, 0).numpy()
    got = pack_network(spec(folder)).transform
    assert np.array_equal(got.pixels_HWC(image, image.size), wanted_HWC)
    asked = pack_network(spec(folder, interpolation="bilinear")).transform
    assert asked.interpolation == "bilinear"


@pytest.fixture
def tag(monkeypatch, folders):
    """A tag of ViT-B-32 with the weights of a tiny network, quick_gelu and its own transform."""
    weights = folders("quick_gelu") / "open_clip_model.safetensors"
    entry = {
        "file": str(weights),
        "quick_gelu": True,
        "resize_mode": "squash",
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.6, 0.6, 0.6),
    }
    plain = json.loads(json.dumps(KINDS["vit"]))
    monkeypatch.setattr(open_clip, "get_model_config", lambda _: json.loads(json.dumps(plain)))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-B-32", {"tiny": entry})
    return "tiny"


def test_a_tags_activation_wins_over_the_architectures_and_is_logged(tag, folders, caplog):
    with caplog.at_level(logging.INFO, "dfn_ray"):
        packed = pack_network(config.Network(model="ViT-B-32", pretrained=tag))
    assert packed.model_cfg["quick_gelu"] is True
    assert "quick_gelu = True" in caplog.text
    assert (
        packed.fingerprint()["architecture"] == fingerprint(folders("quick_gelu"))["architecture"]
    )


def test_the_recipes_activation_wins_over_the_tags(tag):
    spec = config.Network(model="ViT-B-32", pretrained=tag, quick_gelu=False)
    assert pack_network(spec).model_cfg["quick_gelu"] is False


def test_a_tags_transform_is_applied_and_the_recipe_overrides_it(tag):
    packed = pack_network(config.Network(model="ViT-B-32", pretrained=tag))
    transform = packed.transform
    assert (transform.resize_mode, transform.interpolation) == ("squash", "bilinear")
    assert (transform.mean, transform.std) == ((0.5,) * 3, (0.6,) * 3)
    spec = config.Network(
        model="ViT-B-32", pretrained=tag, resize_mode="longest", interpolation="bicubic"
    )
    overridden = pack_network(spec).transform
    assert overridden == replace(transform, resize_mode="longest", interpolation="bicubic")


def failing_download(*args, **kwargs):
    raise FileNotFoundError("no route to host")


def test_what_cannot_be_found_is_an_input_error(tmp_path):
    mistakes = {
        r"no architecture 'ViT-B-33'; the closest names: .*ViT-B-32": {
            "model": "ViT-B-33",
            "pretrained": "openai",
        },
        r"neither a file nor one of ViT-B-32's tags: openai": {
            "model": "ViT-B-32",
            "pretrained": "opnai",
        },
        r"need a folder with open_clip_config.json": {"model": f"local-dir:{tmp_path}"},
        r"need an architecture, hf-hub:": {"model": "ftp:org/repo"},
    }
    for message, settings in mistakes.items():
        with pytest.raises(InputError, match=message):
            pack_network(config.Network(**settings))


def test_memory_that_runs_out_is_no_mistake_of_the_users(folders, monkeypatch):
    def no_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(open_clip, "download_pretrained", no_memory)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", no_memory)
    monkeypatch.setattr("dfn_ray.network.architecture.build_module", no_memory)
    for spec_of in (
        spec(folders("vit")),
        config.Network(model="ViT-B-32", pretrained="openai"),
        config.Network(model="hf-hub:org/repo"),
    ):
        with pytest.raises(MemoryError):
            pack_network(spec_of)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda _: ["open_clip_config.json"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_memory)
    with pytest.raises(MemoryError):
        pack_network(config.Network(model="hf-hub:org/repo"))


def test_a_folder_with_a_broken_config_or_unclear_weights_is_refused(tmp_path):
    folder = network_folder(tmp_path / "net", KINDS["vit"])
    weights = folder / "open_clip_model.safetensors"
    weights.rename(folder / "a.safetensors")
    assert pack_network(spec(folder)) is not None
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(InputError, match=r"found a\.safetensors, b\.safetensors"):
        pack_network(spec(folder))
    for content in (
        "{",
        "[]",
        '{"model_cfg": {}}',
        '{"model_cfg": {"text_cfg": 1, "vision_cfg": 2}}',
    ):
        (folder / "open_clip_config.json").write_text(content)
        with pytest.raises(InputError, match=r"open_clip_config\.json: "):
            pack_network(spec(folder))


def test_a_tokenizer_that_drops_tokens_at_random_is_refused(folders, tmp_path):
    def edit(values):
        values["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"reduction_mask": "random"}

    with pytest.raises(InputError, match="reduction_mask"):
        pack_network(spec(edited(folders, tmp_path, edit)))


def test_building_reads_nothing_but_the_frozen_network(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders("timm"), tmp_path / "gone")
    packed = pack_network(spec(folder))
    shutil.rmtree(folder)
    monkeypatch.setattr("socket.socket.connect", failing_download)
    assert build(packed) is not None
