"""Folders like published repositories load or are rejected with a reason, and so are hostile ones.

Names of files, keys and tensors are those of the repositories, according to public sources and
transformers' own classes; sizes are small and weights random.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import huggingface_hub
import pytest
import safetensors.torch
import torch

from dfn_ray import config
from dfn_ray.errors import InputError
from dfn_ray.network.packed import build, pack_network
from tests.network import layout_tokenizers, layouts
from tests.network.conftest import KINDS, network_folder, spec
from tests.network.layouts import by_dfn_ray, by_transformers, changed, difference, two_files, write

OLD_PROCESSOR = {
    "crop_size": 64,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 64,
}
ADDED = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
OLD_TOKENS = {
    "bos_token": {"content": "<|startoftext|>", "__type": "AddedToken", **ADDED},
    "eos_token": {"content": "<|endoftext|>", "__type": "AddedToken", **ADDED},
    "unk_token": {"content": "<|endoftext|>", "__type": "AddedToken", **ADDED},
    "pad_token": "<|endoftext|>",
    "add_prefix_space": False,
    "do_lower_case": True,
    "errors": "replace",
    "name_or_path": "./clip_ViT_B_32/",
}


def with_buffers(folder):
    """The weights with the buffers that older versions of transformers saved."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    for tower, count in (("text_model", layout_tokenizers.CONTEXT), ("vision_model", 17)):
        state[f"{tower}.embeddings.position_ids"] = torch.arange(count)[None]
    return state


@pytest.fixture
def openai(tmp_path):
    """openai/clip-vit-base-patch32."""
    folder = tmp_path / "openai"
    layouts.clip(folder, {"eos_token_id": 2}, {})
    (folder / "processor_config.json").unlink()
    write(folder, "preprocessor_config.json", OLD_PROCESSOR)
    write(folder, "tokenizer_config.json", OLD_TOKENS)
    write(folder, "special_tokens_map.json", {"bos_token": OLD_TOKENS["bos_token"]})
    changed(
        folder, "config.json", lambda v: v.update(text_config_dict=None, vision_config_dict=None)
    )
    state = with_buffers(folder)
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(state, folder / "pytorch_model.bin")
    for other in ("flax_model.msgpack", "tf_model.h5", "README.md"):
        (folder / other).write_bytes(b"not looked at")
    return folder


def test_openais_folder_gives_transformers_scores(openai):
    assert difference(by_dfn_ray(openai), by_transformers(openai)) < 1e-5


def test_vocabulary_and_merges_give_the_tokens_of_tokenizer_json(openai):
    whole = pack_network(spec(openai))
    two_files(openai)
    parts = pack_network(spec(openai))
    scores = by_dfn_ray(whole).texts, by_dfn_ray(parts).texts
    assert torch.equal(*scores)


def test_the_papers_filter_has_no_image_processor_and_loads_with_clips(openai, caplog):
    """apple/DFN-public: config, pickled weights, CLIP's tokenizer; users add OpenAI's processor."""
    (openai / "preprocessor_config.json").unlink()
    (openai / "model.safetensors").unlink()
    two_files(openai)
    with caplog.at_level(logging.WARNING, "dfn_ray"):
        packed = pack_network(spec(openai))
    assert "has no preprocessor_config.json" in caplog.text
    assert "captions are cleaned by its own tokenizer only" in caplog.text
    write(openai, "preprocessor_config.json", OLD_PROCESSOR)
    assert difference(by_dfn_ray(packed), by_transformers(openai)) < 1e-5


def test_of_two_layouts_in_one_folder_open_clips_is_read_and_said(openai, caplog):
    """laion/CLIP-ViT-B-32-laion2B-s34B-b79K."""
    network_folder(openai, KINDS["vit"])
    with caplog.at_level(logging.WARNING, "dfn_ray"):
        packed = pack_network(spec(openai))
    assert "contains a network in open_clip's layout and one in transformers'" in caplog.text
    assert "using open_clip's" in caplog.text
    assert packed.tokenizer.kind == "clip"
    assert packed.model_cfg["vision_cfg"]["width"] == KINDS["vit"]["vision_cfg"]["width"]


def test_googles_siglip_loads_by_its_sentencepiece_model(tmp_path):
    """google/siglip-base-patch16-224: sections of the config without default values."""
    layouts.siglip(tmp_path, {}, {}, layout_tokenizers.siglip_tokenizer(tmp_path))
    nested = json.loads((tmp_path / "processor_config.json").read_text())["image_processor"]
    (tmp_path / "processor_config.json").unlink()
    write(tmp_path, "preprocessor_config.json", nested)
    defaults = ("hidden_act", "layer_norm_eps", "attention_dropout", "bos_token_id", "eos_token_id")
    changed(
        tmp_path,
        "config.json",
        lambda v: [v[s].pop(k, None) for s in ("text_config", "vision_config") for k in defaults],
    )
    assert difference(by_dfn_ray(tmp_path), by_transformers(tmp_path)) < 1e-5


def test_googles_siglip_2_pads_on_the_right_and_keeps_case_as_its_file_does(tmp_path, caplog):
    """google/siglip2-base-patch16-224: SiglipModel with GemmaTokenizer; bilinear."""
    from transformers import GemmaTokenizer

    layouts.siglip(tmp_path, {}, {}, layout_tokenizers.gemma_tokenizer(kind=GemmaTokenizer))
    changed(tmp_path, "processor_config.json", lambda v: v["image_processor"].update(resample=2))
    with caplog.at_level(logging.WARNING, "dfn_ray"):
        packed = pack_network(spec(tmp_path))
    assert "unlike in the training of SigLIP 2, without conversion to lower case" in caplog.text
    assert packed.transform.interpolation == "bilinear"
    assert difference(by_dfn_ray(packed), by_transformers(tmp_path)) < 1e-5
    cleaned = pack_network(spec(tmp_path, caption_cleaning="open_clip"))
    one, other = by_dfn_ray(cleaned, ["A DOG!", "a dog"]).texts
    assert torch.equal(one, other)
    assert cleaned.fingerprint() != packed.fingerprint()


def test_apples_dfn_2b_loads_in_open_clips_layout(tmp_path):
    """apple/DFN2B-CLIP-ViT-B-16, which includes its tokenizer files."""
    network_folder(tmp_path, KINDS["quick_gelu"])
    layout_tokenizers.clip_tokenizer().save_pretrained(tmp_path)
    assert pack_network(spec(tmp_path)).tokenizer.kind == "clip"


def test_mobileclip_alone_is_refused_and_in_open_clips_layout_loads(tmp_path):
    """apple/MobileCLIP-S1 is only a checkpoint; apple/MobileCLIP-S1-OpenCLIP has timm's tower."""
    (tmp_path / "mobileclip_s1.pt").write_bytes(b"weights")
    with pytest.raises(
        InputError, match=r"found mobileclip_s1\.pt\. For a checkpoint alone, name its arch"
    ):
        pack_network(spec(tmp_path))
    tower = {
        "timm_model_name": "fastvit_mci0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": None,
        "image_size": 64,
    }
    text = {**KINDS["vit"]["text_cfg"], "no_causal_mask": True}
    cfg = {"embed_dim": 32, "custom_text": True, "vision_cfg": tower, "text_cfg": text}
    write(tmp_path, "open_clip_config.json", {"model_cfg": cfg, "preprocess_cfg": {}})
    assert build(pack_network(spec(tmp_path, random_weights_seed=0))) is not None


def test_a_folder_on_a_store_is_read_without_weights_of_other_frameworks(clip, made, monkeypatch):
    from dfn_ray.resolving import fetch_networks

    fetched = []
    read = fetch_networks.read_uri
    monkeypatch.setattr(fetch_networks, "read_uri", lambda uri: (fetched.append(uri), read(uri))[1])
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (clip / name).write_bytes(b"large")
    there = fetch_networks.fetch_network(config.Network(model=f"local-dir:file://{clip}"))
    assert there.fingerprint() == pack_network(spec(made)).fingerprint()
    assert not [uri for uri in fetched if uri.endswith((".bin", ".h5", ".msgpack"))]


def test_tokens_of_a_folders_own_tokenizer_need_no_torch(made):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dfn_ray.network.tokenizer import TokenizerSpec, tokenize\n"
        f"file = ('tokenizer.json', Path({str(made)!r}, 'tokenizer.json').read_bytes())\n"
        'options = \'{"pad": [0, "x"], "clean": null}\'\n'
        "spec = TokenizerSpec(context_length=9, kwargs_json=options, files=(file,),\n"
        "                     reader='folder')\n"
        "assert tokenize(spec, ['a photo', '']).shape == (2, 9)\n"
        "print({'torch', 'open_clip', 'transformers'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_a_repository_on_the_hub_is_read_as_a_folder_is_and_from_the_cache_offline(
    clip, made, monkeypatch
):
    files = {path.name for path in clip.iterdir()}
    asked = []

    def download(model_id, name):
        asked.append(name)
        return str(clip / name)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda _: [*files, "onnx/model.onnx"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    there = pack_network(config.Network(model="hf-hub:org/clip"))
    assert there.fingerprint() == pack_network(spec(made)).fingerprint()
    assert set(asked) <= files

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(clip))
    assert (
        pack_network(config.Network(model="hf-hub:org/clip")).fingerprint() == there.fingerprint()
    )
