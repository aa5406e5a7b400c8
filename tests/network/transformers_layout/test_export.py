"""An exported network has the same scores in transformers, and the same weights if read back."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from dfn_ray import cli
from dfn_ray.errors import InputError
from dfn_ray.network.contrastive import Towers, contrastive_loss
from dfn_ray.network.packed import network_files, pack_network, trainable_module
from dfn_ray.network.transformers_layout.write_network import layout_files
from tests.network import layout_tokenizers, layouts
from tests.network.conftest import KINDS, TEXT, VIT, network_folder, spec
from tests.network.layouts import by_dfn_ray, by_transformers, changed, difference

PLAIN = [*layout_tokenizers.CAPTIONS[:5], "北京", "собака на улице", "word " * 2000]
"""Captions that open_clip's cleaning does not change."""
NARROW = {"context_length": 20}
TANH = {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-4}}
EXPRESSED = {
    "quick_gelu": KINDS["quick_gelu"],
    "custom text, vector scale": {**KINDS["custom_text"], "nonscalar_logit_scale": True},
    "tanh": {
        "embed_dim": 24,
        "vision_cfg": {**VIT, **TANH},
        "text_cfg": {**TEXT, **TANH, **NARROW},
    },
    "end": {
        "embed_dim": 24,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407},
    },
}


def written(packed, folder):
    folder.mkdir()
    files, notes = layout_files(packed)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder, notes


@pytest.mark.parametrize("cfg", EXPRESSED.values(), ids=EXPRESSED)
def test_a_clip_of_open_clip_scores_the_same_by_transformers_and_comes_back(tmp_path, cfg):
    network_folder(tmp_path / "ours", cfg)
    packed = pack_network(spec(tmp_path / "ours", resize_mode="squash"))
    folder, notes = written(packed, tmp_path / "theirs")
    here, there = by_dfn_ray(packed, PLAIN), by_transformers(folder, PLAIN)
    assert difference(here, there) < 1e-5
    again = pack_network(spec(folder))
    assert again.weights_sha256 == packed.weights_sha256
    assert again.model_cfg["custom_text"] == packed.model_cfg["custom_text"]
    assert [note.split()[0] for note in notes] == ["captions"]


def test_open_clips_crop_is_written_with_a_note(tmp_path):
    packed = pack_network(spec(network_folder(tmp_path / "ours", KINDS["vit"])))
    folder, notes = written(packed, tmp_path / "theirs")
    assert "begins a pixel earlier" in notes[1]
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"shortest_edge": 32}
    assert pack_network(spec(folder)).transform.crop_rounding == "down"


def foreign(kind, folder):
    """A network in transformers' layout, with its own tokenizer."""
    if kind == "clip":
        layouts.clip(folder, {}, {"patch_size": 14, "image_size": 70})
    elif kind == "sentencepiece":
        layouts.siglip(folder, {}, {}, layout_tokenizers.siglip_tokenizer(folder))
    elif kind == "siglip 2":
        layouts.siglip(folder, {}, {}, layout_tokenizers.gemma_tokenizer("left"))
    else:
        layouts.siglip(folder, {}, {}, layout_tokenizers.unigram_tokenizer())
    return folder


FOREIGN = ("clip", "sentencepiece", "siglip", "siglip 2")


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_network_of_transformers_comes_back_as_it_was(tmp_path, kind):
    packed = pack_network(spec(foreign(kind, tmp_path / "first")))
    folder, notes = written(packed, tmp_path / "second")
    assert pack_network(spec(folder)).fingerprint() == packed.fingerprint()
    first, second = by_transformers(tmp_path / "first"), by_transformers(folder)
    assert difference(first, second) == 0
    assert notes == []


@pytest.mark.parametrize("cleaning", ["own", "open_clip"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_training_starts_from_it_and_what_it_writes_is_read_here(tmp_path, kind, cleaning):
    packed = pack_network(spec(foreign(kind, tmp_path / "first"), caption_cleaning=cleaning))
    module = trainable_module(packed)
    height, width = packed.transform.size
    tokens = torch.randint(3, 200, (4, layout_tokenizers.CONTEXT))
    towers = Towers(module, precision="fp32")
    loss = contrastive_loss("clip" if kind == "clip" else "siglip", rank=0, world_size=1)
    loss(towers(torch.randn(4, 3, height, width), tokens)).backward()
    assert all(p.grad is not None for p in module.parameters())
    (tmp_path / "second").mkdir()
    for name, content in network_files(packed, module.state_dict()).items():
        (tmp_path / "second" / name).write_bytes(content)
    again = pack_network(spec(tmp_path / "second"))
    assert again.fingerprint() == packed.fingerprint()
    assert difference(by_dfn_ray(again), by_dfn_ray(packed)) == 0
    (tmp_path / "third").mkdir()
    files, notes = layout_files(again)
    assert len(notes) == (cleaning == "open_clip")
    assert set(files) >= {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture
def stored(tmp_path):
    """Training's files of a network with its own tokenizer, without digests, to be modified."""
    packed = pack_network(spec(foreign("clip", tmp_path / "first")))
    (tmp_path / "second").mkdir()
    for name, content in network_files(packed, trainable_module(packed).state_dict()).items():
        (tmp_path / "second" / name).write_bytes(content)
    weights = tmp_path / "second" / "open_clip_model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(weights), weights)
    return tmp_path / "second"


MISTAKES = {
    "key": (lambda own: own.update(color=1), r"dfn_ray\.tokenizer\.color: "),
    "file": (lambda own: own.update(file="../x"), r"dfn_ray\.tokenizer\.file: "),
    "absent": (lambda own: own.update(file="spiece.model"), r"spiece\.model is not in the folder"),
    "context": (
        lambda own: own.update(context_length=99),
        r"context_length: need at most text_cfg\.context_length, 20, got 99",
    ),
    "pad": (lambda own: own["options"].update(pad=-1), r"dfn_ray\.tokenizer\.options: "),
}


@pytest.mark.parametrize(("edit", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_stored_tokenizer_is_named(stored, edit, message):
    changed(stored, "open_clip_config.json", lambda v: edit(v["dfn_ray"]["tokenizer"]))
    with pytest.raises(InputError, match=message):
        pack_network(spec(stored))


def test_a_stored_tokenizer_has_no_more_tokens_than_the_network_embeddings(stored):
    added = {"id": 5000, "content": "zz", "special": True}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    changed(stored, "tokenizer.json", lambda v: v["model"]["vocab"].update(zz=5000))
    changed(stored, "tokenizer.json", lambda v: v["added_tokens"].append(added | plain))
    with pytest.raises(InputError, match=r"tokenizer\.json: 5,001 tokens, but the network has 814"):
        pack_network(spec(stored))


def test_a_stored_tokenizer_that_splits_at_random_is_refused(stored):
    changed(stored, "tokenizer.json", lambda v: v["model"].update(dropout=0.1))
    with pytest.raises(InputError, match=r"tokenizer\.json: .*model\.dropout: 0\.1 splits words"):
        pack_network(spec(stored))


REFUSED = {
    "resnet": (KINDS["resnet"], {}, r"CLIPModel cannot.*vision_cfg\.layers = .* \(a ResNet\)"),
    "timm": (KINDS["timm"], {}, r"vision_cfg\.timm_model_name = test_vit"),
    "coca": (KINDS["coca"], {}, r"multimodal_cfg = .*attentional_pool = true.*embed_cls = true"),
    "siglip": (KINDS["siglip"], {},
        r"init_logit_bias = -10.*no_causal_mask = true.*pool_type = last"),
    "size": (KINDS["non_square"], {}, r"vision_cfg\.image_size = \[32, 48\]"),
    "mode": (KINDS["vit"], {"resize_mode": "longest"}, r"resize_mode = longest"),
    "scale": (
        {**KINDS["vit"], "text_cfg": {**TEXT, "ls_init_value": 0.1}},
        {},
        r"text_cfg\.ls_init_value = 0\.1",
    ),
    "end": (
        {**KINDS["vit"], "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 2}},
        {},
        r"text_cfg\.eos_id = 2, which transformers reads as the largest",
    ),
    "cleaner": (
        {**KINDS["vit"], "text_cfg": {**TEXT, "tokenizer_kwargs": {"clean": "whitespace"}}},
        {},
        r"CLIPTokenizer cannot express .*whitespace",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("cfg", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_transformers_cannot_express_is_refused_by_key(tmp_path, cfg, settings, message):
    packed = pack_network(spec(network_folder(tmp_path, cfg), **settings))
    with pytest.raises(InputError, match=message):
        layout_files(packed)


def test_the_command_writes_a_folders_network_or_a_runs_once(tmp_path, capsys):
    run = tmp_path / "run"
    network_folder(run / "network", KINDS["quick_gelu"])
    (run / "run.json").write_text("{}")
    assert cli.run(["export", "--network", str(run), str(tmp_path / "one")]) == 0
    assert "wrote the network in transformers' layout to" in capsys.readouterr().out
    assert cli.run(["export", "--network", f"local-dir:{run}/network", str(tmp_path / "two")]) == 0
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two
    assert cli.run(["export", "--network", str(run), str(tmp_path / "one")]) == 2
    assert "use an empty folder" in capsys.readouterr().err
    assert cli.run(["export", "--network", str(tmp_path), str(tmp_path / "three")]) == 2
    assert "need a folder with open_clip_config.json" in capsys.readouterr().err
