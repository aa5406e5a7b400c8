"""Checkpoints load bit for bit, with any wrapper, and never run code."""

from __future__ import annotations

import json
import math
import os
import pickle

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch

from dfn_ray import config
from dfn_ray.errors import InputError
from dfn_ray.network import weights
from dfn_ray.network.packed import build, pack_network
from tests.network.conftest import KINDS, network_folder, spec


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The name of a tiny built-in architecture."""
    (tmp_path / "tiny-vit.json").write_text(json.dumps(KINDS["vit"]))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [tmp_path])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.factory._rescan_model_configs()
    return "tiny-vit"


@pytest.fixture
def state(folders):
    return safetensors.torch.load_file(folders("vit") / "open_clip_model.safetensors")


def loaded(tiny, path):
    return pack_network(config.Network(model=tiny, pretrained=str(path)), checkpoint=path)


WRAPPINGS = {
    "bare": lambda state: state,
    "training checkpoint": lambda state: {
        "epoch": 3,
        "name": "run",
        "state_dict": state,
        "optimizer": {},
    },
    "distributed": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "distributed, then compiled": lambda state: {
        f"_orig_mod.module.{k}": v for k, v in state.items()
    },
    "compiled, then distributed, twice": lambda state: {
        f"module._orig_mod.module.module.{k}": v for k, v in state.items()
    },
    "vector logit scale": lambda state: {**state, "logit_scale": state["logit_scale"].reshape(1)},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_a_torch_checkpoint_gives_the_weights_of_the_safetensors_file(
    tiny, folders, state, wrap, tmp_path
):
    torch.save(wrap(state), tmp_path / "epoch_3.pt")
    network = loaded(tiny, tmp_path / "epoch_3.pt")
    again = loaded(tiny, folders("vit") / "open_clip_model.safetensors")
    folder = pack_network(spec(folders("vit")))
    assert network.weights_sha256 == again.weights_sha256 == folder.weights_sha256
    assert network.fingerprint() == folder.fingerprint()


def test_the_state_survives_the_way_to_an_actor_bit_for_bit(folders, state):
    packed = pack_network(spec(folders("vit")))
    buffers = []
    sent = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    assert len(sent) < 100_000  # the arrays travel beside the pickle, as Ray sends them
    arrived = pickle.loads(
        sent, buffers=[memoryview(bytes(b)) for b in buffers]
    )  # read-only, as Ray's are
    model = build(arrived)._model
    original = {k: v for k, v in state.items() if k.startswith("visual.conv1") or "embedding" in k}
    for name, tensor in original.items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert weights.sha256(arrived.state) == packed.weights_sha256


def test_a_state_that_lacks_a_tensor_is_not_built(folders):
    packed = pack_network(spec(folders("vit")))
    del packed.state["ln_final.bias"]
    with pytest.raises(RuntimeError, match=r"ln_final\.bias"):
        build(packed)


def test_a_half_precision_checkpoint_is_widened_exactly(tiny, state, tmp_path):
    half = {name: tensor.bfloat16() for name, tensor in state.items()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    packed = loaded(tiny, tmp_path / "half.safetensors")
    for name, array in packed.state.items():
        assert array.dtype == np.float32
        assert torch.equal(torch.from_numpy(array), half[name].float())


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tiny, state, tmp_path, dtype):
    state = {**state, "text_projection": state["text_projection"].to(dtype)}
    safetensors.torch.save_file(state, tmp_path / "quantised.safetensors")
    said = rf"text_projection is of {str(dtype)[6:]}; use the weights from before"
    with pytest.raises(InputError, match=said):
        loaded(tiny, tmp_path / "quantised.safetensors")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("protocol", ["zip", "plain pickle"])
def test_a_checkpoint_with_code_is_refused_and_not_run(
    tiny, state, tmp_path, monkeypatch, protocol
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if protocol == "zip":
        torch.save({"state_dict": state, "extra": Harmful()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Harmful()}, protocol=2))
    with pytest.raises(
        InputError, match=r"evil.pt.*would run code from the file \(posix\.mkdir\)\."
    ):
        loaded(tiny, path)
    assert not (tmp_path / "harm").exists()


def test_files_that_are_no_checkpoints_are_named(tiny, tmp_path):
    contents = {
        "empty.pt": b"",
        "text.pt": b"hello",
        "cut.safetensors": b"\x80\0\0\0\0\0\0\0{",
        "zip.pt": b"PK\x03\x04" + bytes(40),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            loaded(tiny, tmp_path / name)
    with pytest.raises(InputError, match=r"missing\.pt"):
        loaded(tiny, tmp_path / "missing.pt")


def test_a_checkpoint_without_tensors_is_refused(tiny, tmp_path):
    torch.save({"state_dict": {"epoch": 3, "lr": 0.1}}, tmp_path / "numbers.pt")
    with pytest.raises(
        InputError,
        match=r"numbers.pt: need dense tensors of real numbers, by name, "
        r"got other values: epoch, lr",
    ):
        loaded(tiny, tmp_path / "numbers.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list.pt: need a state_dict, got list"):
        loaded(tiny, tmp_path / "list.pt")


UNUSABLE = {
    "numbers for names": lambda state: {1: torch.zeros(1), **state},
    "sparse": lambda state: {**state, "ln_final.weight": torch.zeros(64).to_sparse()},
    "without data": lambda state: {**state, "ln_final.weight": torch.zeros(64, device="meta")},
    "complex": lambda state: {**state, "ln_final.weight": torch.zeros(64, dtype=torch.complex64)},
}


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("edit", UNUSABLE.values(), ids=UNUSABLE)
def test_tensors_that_hold_no_plain_numbers_are_refused_by_name(tiny, state, tmp_path, edit):
    torch.save(edit(state), tmp_path / "odd.pt")
    said = (
        r"odd\.pt: need dense tensors of real numbers, by name, "
        r"got other values: (1|ln_final\.weight)$"
    )
    with pytest.raises(InputError, match=said):
        loaded(tiny, tmp_path / "odd.pt")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_with_nan_or_infinity_are_refused_by_name(tiny, state, tmp_path, value):
    folder = network_folder(tmp_path / "odd", KINDS["vit"])
    state["ln_final.weight"][3] = value
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(
        InputError, match=r"odd: the weights hold NaN or infinity: ln_final\.weight;"
    ):
        pack_network(spec(folder))


def test_what_no_score_depends_on_may_be_anything(tmp_path):
    folder = network_folder(tmp_path / "coca", KINDS["coca"])
    path = folder / "open_clip_model.safetensors"
    state = safetensors.torch.load_file(path)
    state["text_decoder.text_projection"].fill_(math.nan)  # open_clip leaves it as memory was
    safetensors.torch.save_file(state, path)
    assert pack_network(spec(folder)).name == "dfn"


def test_a_pointer_of_git_lfs_is_called_so(tiny, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha")
    with pytest.raises(InputError, match=r"a\.safetensors: is a Git LFS pointer"):
        loaded(tiny, tmp_path / "a.safetensors")


def test_weights_of_another_architecture_are_refused_by_key(tiny, state, tmp_path):
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({"visual.extra": torch.zeros(1), **state}, path)
    with pytest.raises(InputError, match=r"1 unexpected \(visual\.extra\)"):
        loaded(tiny, path)
    del state["ln_final.weight"]
    safetensors.torch.save_file(state, path)
    with pytest.raises(InputError, match=r"1 tensors missing \(ln_final\.weight\)"):
        loaded(tiny, path)
    state["ln_final.weight"] = torch.zeros(65)
    safetensors.torch.save_file(state, path)
    with pytest.raises(InputError, match=r"do not fit the architecture"):
        loaded(tiny, path)


def test_old_text_towers_load_into_custom_text_networks_as_in_open_clip(folders, state, tmp_path):
    folder = network_folder(tmp_path / "custom", KINDS["custom_text"])
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    packed = pack_network(spec(folder))
    assert np.array_equal(packed.state["text.ln_final.weight"], state["ln_final.weight"].numpy())
    assert open_clip.create_model(f"local-dir:{folder}") is not None


def test_the_digest_sees_names_shapes_types_and_values_but_not_order():
    a, b = np.zeros((2, 3), np.float32), np.ones(4, np.float32)
    digest = weights.sha256({"a": a, "b": b})
    assert digest == weights.sha256({"b": b, "a": a})
    others = [
        {"a": a},
        {"a": a, "c": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a.view(np.int32), "b": b},
        {"a": a, "b": np.nextafter(b, 2)},
    ]
    assert len({digest, *map(weights.sha256, others)}) == 6
