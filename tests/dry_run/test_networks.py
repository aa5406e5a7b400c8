"""A network that is absent or cannot be built is an input error before anything starts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dfn_ray.config import Network
from dfn_ray.dry_run.network_files import network_finding
from dfn_ray.errors import InputError
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.storage import Store
from tests.dry_run.conftest import Hub
from tests.network import layouts
from tests.network.layout_tokenizers import unigram_tokenizer

DEMO = Path(__file__).parents[2] / "dfn_ray" / "demo" / "data" / "network"
CONFIG = (DEMO / "open_clip_config.json").read_bytes()
INDEX = json.dumps({"weight_map": {"visual.proj": "1.safetensors"}}).encode()
CLIP = json.dumps({"model_type": "clip", "architectures": ["CLIPModel"]}).encode()
"""All other keys have transformers' defaults."""


def look(model: str, **settings):
    return network_finding(Network(model=model, **settings), "networks.0")


def mistake(model: str, **settings) -> str:
    finding = look(model, **settings)
    assert not finding.ok
    assert isinstance(finding.error, InputError)
    assert finding.error.exit_code == 2
    return finding.text


def folder_of(path: Path, **files: bytes) -> str:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return f"local-dir:{path}"


def test_architectures_and_tags_are_open_clips(tmp_path):
    assert look("ViT-B-32", random_weights_seed=0).text == "ViT-B-32, random weights"
    assert look("ViT-L/14", pretrained="openai").text == "ViT-L-14, open_clip's tag openai"
    said = mistake("ViT-B-33", random_weights_seed=0)
    assert said.startswith(
        "networks.0.model: open_clip has no architecture 'ViT-B-33'; the closest names: ViT-B-32"
    )
    said = mistake("ViT-B-32", pretrained="opneai")
    assert said.startswith(
        "networks.0.pretrained: 'opneai' is neither a file nor one of ViT-B-32's tags: openai,"
    )
    assert "need an architecture, hf-hub:org/repo or local-dir:PATH" in mistake("hub:a/b")


def test_a_checkpoint_is_there_and_no_pointer(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"weights")
    finding = look("ViT-B-32", pretrained=f"{tmp_path}/a.pt")
    assert finding.text.startswith("ViT-B-32, weights a.pt (")
    (tmp_path / "b.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a Git LFS pointer" in mistake("ViT-B-32", pretrained=f"{tmp_path}/b.pt")
    (tmp_path / "c.pt").write_bytes(b"")
    assert "got an empty file" in mistake("ViT-B-32", pretrained=f"{tmp_path}/c.pt")
    (tmp_path / "d.pt").mkdir()
    assert "found a folder" in mistake("ViT-B-32", pretrained=f"{tmp_path}/d.pt")
    absent = look("ViT-B-32", pretrained=f"{tmp_path}/e.pt")
    assert absent.error is not None
    assert absent.error.exit_code == 2


def test_a_folder_has_a_layout_a_config_that_can_be_built_and_weights(tmp_path):
    finding = look(f"local-dir:{DEMO}")
    assert finding.ok
    assert "open_clip's layout, weights open_clip_model.safetensors (" in finding.text
    assert "found no files" in mistake(f"local-dir:{tmp_path}/none")
    assert "found a.txt" in mistake(folder_of(tmp_path / "text", a__txt=b"x"))
    bare = folder_of(tmp_path / "bare", open_clip_config__json=CONFIG)
    assert "exactly one file of weights, found none" in mistake(bare)
    assert look(bare, random_weights_seed=0).text.endswith("random weights")
    values = json.loads(CONFIG)
    values["model_cfg"]["embed_dims"] = 3
    wrong = folder_of(tmp_path / "wrong", open_clip_config__json=json.dumps(values).encode())
    said = mistake(wrong, random_weights_seed=0)
    assert (
        f"{tmp_path}/wrong/open_clip_config.json: model_cfg.embed_dims: open_clip has no such key"
        in said
    )
    values = json.loads(CONFIG)
    values["model_cfg"]["text_cfg"]["vocab_size"] = 1000
    small = folder_of(tmp_path / "small", open_clip_config__json=json.dumps(values).encode())
    said = mistake(small, random_weights_seed=0)
    assert "small/open_clip_config.json: text_cfg.vocab_size: 1,000 embeddings" in said


def test_a_tilde_in_local_dir_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "x").symlink_to(DEMO)
    finding = look("local-dir:~/networks/x")
    assert finding.text.startswith(f"local-dir:{tmp_path}/networks/x, open_clip's layout")
    spec = Network(model="local-dir:~/networks/x")
    here = fetch_network(Network(model=f"local-dir:{DEMO}"))
    assert fetch_network(spec).weights_sha256 == here.weights_sha256
    assert f"local-dir:{tmp_path}/none: need a folder" in mistake("local-dir:~/none")


def test_transformers_layout_is_recognized_by_its_config(tmp_path):
    there = folder_of(tmp_path / "there", config__json=CLIP, model__safetensors=b"x" * 9)
    assert "transformers' layout of clip, weights model.safetensors" in look(there).text
    both = folder_of(
        tmp_path / "there", open_clip_config__json=CONFIG, open_clip_model__safetensors=b"x" * 9
    )
    said = "open_clip's layout (and not transformers', which it has too), weights open_clip_model"
    assert said in look(both).text
    index = {"model.safetensors.index.json": INDEX}
    sharded = folder_of(tmp_path / "sharded", config__json=CLIP, **index)
    need = "index.json: weight_map.visual.proj: need a .safetensors file of this folder"
    assert f"{need}, got '1.safetensors'" in mistake(sharded)
    folder_of(tmp_path / "sharded", **{"1.safetensors": b"x"})
    assert "weights model.safetensors.index.json" in look(sharded).text
    bare = folder_of(tmp_path / "bare", config__json=CLIP)
    assert "has no weights: need model.safetensors or" in mistake(bare)
    for kind in ("bert", "siglip2", None):
        data = json.dumps({"model_type": kind}).encode()
        other = folder_of(tmp_path / "other", config__json=data)
        assert (f"model_type {kind}" if kind else "no model_type") in mistake(other)


def test_open_clips_config_beside_weights_in_transformers_layout_alone_is_a_mistake(tmp_path):
    names = {"vision_model.embeddings.class_embedding": torch.zeros(1)}
    folder = folder_of(
        tmp_path / "mixed",
        open_clip_config__json=CONFIG,
        config__json=CLIP,
        model__safetensors=safetensors.torch.save(names),
    )
    said = mistake(folder)
    assert "mixed/model.safetensors: its tensors have transformers' names, but the folder" in said
    assert "Move open_clip_config.json out of the folder" in said
    (tmp_path / "mixed" / "open_clip_config.json").unlink()
    assert "mixed/model.safetensors: not the weights that config.json describes" in mistake(folder)


def test_the_header_of_weights_is_checked_against_the_config_and_the_file(tmp_path):
    folder = tmp_path / "network"
    layouts.clip(folder, {}, {})
    assert look(f"local-dir:{folder}").ok
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    tensors = safetensors.torch.load(whole)  # not of the file, which is cut while it is mapped
    for size in (len(whole) // 2, 500):
        path.write_bytes(whole[:size])
        said = mistake(f"local-dir:{folder}")
        assert f"model.safetensors: is truncated: has {size:,} of " in said
        with pytest.raises(InputError, match="is truncated: has"):
            fetch_network(Network(model=f"local-dir:{folder}"))
    tensors["left"] = tensors.pop("visual_projection.weight")
    safetensors.torch.save_file(tensors, path)
    said = mistake(f"local-dir:{folder}")
    assert "describes: 1 missing (visual_projection.weight), 1 left over (left). Take both" in said


def test_a_config_of_a_larger_network_is_noticed_before_it_is_built(tmp_path):
    folder = tmp_path / "network"
    layouts.clip(folder, {}, {})
    values = json.loads((folder / "config.json").read_text())
    values["vision_config"] |= {"hidden_size": 8192, "num_attention_heads": 1}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"bytes cannot hold the [\d,]+ parameters"):
        fetch_network(Network(model=f"local-dir:{folder}"))


def test_a_siglip_cannot_have_quick_gelu(tmp_path):
    folder = tmp_path / "network"
    layouts.siglip(folder, {}, {}, unigram_tokenizer())
    assert look(f"local-dir:{folder}").ok
    said = mistake(f"local-dir:{folder}", quick_gelu=True)
    assert said.startswith("networks.0.quick_gelu: the network's config names an activation")
    with pytest.raises(InputError, match=r"networks\.dfn\.quick_gelu: the network's config"):
        fetch_network(Network(model=f"local-dir:{folder}", quick_gelu=True))


def test_a_folder_in_transformers_layout_is_checked_without_torch_and_the_hubs_client(tmp_path):
    model = folder_of(tmp_path / "there", config__json=CLIP, model__safetensors=b"x" * 9)
    code = (
        "import sys; from dfn_ray.config import Network; "
        "from dfn_ray.dry_run.network_files import describe_network; "
        f"print(describe_network(Network(model={model!r}), 'networks.0')); "
        "print({'ray', 'torch', 'open_clip', 'huggingface_hub'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "transformers' layout of clip" in said.stdout
    assert said.stdout.splitlines()[-1] == "set()"


def test_a_folder_on_an_object_store_is_checked_there(s3):
    store = Store("s3://runs/dry-run-network")
    assert "found no files" in mistake(f"local-dir:{store.uri}")
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        store.write(name, (DEMO / name).read_bytes())
    finding = look(f"local-dir:{store.uri}")
    assert "s3://runs/dry-run-network, open_clip's layout, weights open_clip_model" in finding.text


def test_a_repository_is_known_by_its_small_files(hub: Hub):
    weights = {"open_clip_model.safetensors": b"", "README.md": b""}
    hub.repositories = {
        "org/clip": {"open_clip_config.json": CONFIG, **weights},
        "org/hf": {
            "config.json": CLIP,
            "model.safetensors.index.json": INDEX,
            "1.safetensors": b"",
        },
        "org/bare": {"open_clip_config.json": CONFIG},
        "org/text": {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""},
        "org/data": {"data.csv": b""},
    }
    hub.stated = {"open_clip_model.safetensors": 605_000_000}
    finding = look("hf-hub:org/clip")
    assert finding.text == (
        "hf-hub:org/clip, open_clip's layout, weights open_clip_model.safetensors (605 MB)"
    )
    assert hub.asked == [
        "/api/models/org/clip?blobs=true",
        "/org/clip/resolve/main/open_clip_config.json",
    ]
    assert (
        "transformers' layout of clip, weights model.safetensors.index"
        in look("hf-hub:org/hf").text
    )
    processor = {"preprocessor_config.json": b'{"do_resize": false}'}
    hub.repositories["org/raw"] = {**hub.repositories["org/hf"], **processor}
    assert "preprocessor_config.json: do_resize: need true, got False" in mistake("hf-hub:org/raw")
    assert "exactly one file of weights, found none" in mistake("hf-hub:org/bare")
    assert "model_type bert: a text model" in mistake("hf-hub:org/text")
    assert "found data.csv" in mistake("hf-hub:org/data")
    assert "no such repository or file, or it is private (HTTP 404)" in mistake("hf-hub:org/clap")
    assert "need hf-hub:org/repo" in mistake("hf-hub:../../etc/passwd")
    hub.status = 403
    assert "Accept the repository's terms" in mistake("hf-hub:org/clip")


def test_the_tokenizer_of_a_repository_is_read_unless_it_is_large_or_slow(hub: Hub):
    config = {"config.json": CLIP, "model.safetensors": b""}
    hub.repositories["org/hf"] = {**config, "tokenizer.json": b"{}"}
    assert "hf-hub:org/hf/tokenizer.json: cannot be used as a tokenizer" in mistake("hf-hub:org/hf")
    hub.stated = {"tokenizer.json": 34_363_039}
    finding = look("hf-hub:org/hf")
    assert finding.error is None
    assert "; its tokenizer was not checked: tokenizer.json has 34.4 MB" in finding.text
    assert hub.asked[-2:] == ["/api/models/org/hf?blobs=true", "/org/hf/resolve/main/config.json"]
    hub.stated = {}
    hub.failing = {"tokenizer.json"}
    finding = look("hf-hub:org/hf")
    assert finding.error is None
    assert "; its tokenizer was not checked: the hub answers HTTP 503" in finding.text


def test_an_unreachable_hub_is_no_mistake(hub: Hub, monkeypatch):
    from huggingface_hub import constants

    hub.status = 503
    finding = look("hf-hub:org/clip")
    assert finding.line() == "skip    network dfn     not checked: the hub answers HTTP 503"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    finding = look("hf-hub:org/clip")
    assert finding.line() == "skip    network dfn     not checked: no internet connection"
    assert finding.ok
    assert finding.error is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in look("hf-hub:org/clip").text


def test_a_hub_that_is_silent_takes_10_seconds_at_most(hub: Hub, monkeypatch):
    from dfn_ray.dry_run import hub_files as module

    assert module.TIME_LIMIT_S == 10
    monkeypatch.setattr(module, "TIME_LIMIT_S", 1.0)
    hub.silence_s = 4.0
    begin = time.monotonic()
    assert look("hf-hub:org/clip").text == "not checked: no response within 1 s"
    assert time.monotonic() - begin < 3

    def resolves_slowly(*_, **__):
        time.sleep(4)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolves_slowly)
    begin = time.monotonic()
    assert look("hf-hub:org/clip").text == "not checked: no response within 1 s"
    assert time.monotonic() - begin < 3


def test_without_a_network_the_hubs_cache_is_checked(hub: Hub, tmp_path):
    from huggingface_hub import constants

    snapshot = Path(constants.HF_HUB_CACHE) / "models--org--clip" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    (snapshot / "open_clip_config.json").write_bytes(CONFIG)
    hub.status = 503
    finding = look("hf-hub:org/clip")
    assert finding.ok
    assert "open_clip's layout, weights not in the cache; no internet connection" in finding.text
    shutil.copy(DEMO / "open_clip_model.safetensors", snapshot)
    assert "weights open_clip_model.safetensors in the cache" in look("hf-hub:org/clip").text
    (snapshot / "open_clip_config.json").write_bytes(b"{")
    assert "cannot be read as JSON" in mistake("hf-hub:org/clip")
