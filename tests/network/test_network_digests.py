"""A flipped bit in any file of a trained network is detected on loading, or has no effect."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import open_clip
import pytest
import safetensors
import safetensors.torch
import torch

from dfn_ray.config import Network
from dfn_ray.errors import InputError
from dfn_ray.network.architecture import resolve_origin
from dfn_ray.network.packed import WEIGHTS_FILE, network_files, pack_network
from dfn_ray.network.weights import read_checkpoint, serialized_weights
from dfn_ray.resolving.fetch_networks import fetch_network

CONFIG = "open_clip_config.json"


def spec(folder: Path) -> Network:
    return Network(model=f"local-dir:{folder}")


@pytest.fixture(scope="module")
def written(network, tmp_path_factory) -> Path:
    """A folder with the files that training writes."""
    folder = tmp_path_factory.mktemp("written")
    packed = pack_network(spec(network))
    state = {name: torch.from_numpy(array) for name, array in packed.state.items()}
    for name, data in network_files(packed, state).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def copy(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "network"))


def flip(path: Path, place: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def refusal(folder: Path, due: dict, *, is_config: bool) -> str:
    """The error for a changed network; empty if it equals the original."""
    try:
        if is_config:
            resolve_origin(spec(folder), None)
        else:
            assert pack_network(spec(folder)).fingerprint() == due
    except InputError as error:
        return str(error)
    return ""


def test_it_is_the_network_that_it_was_made_of_to_dfn_ray_and_to_open_clip(written, network):
    assert pack_network(spec(written)).fingerprint() == pack_network(spec(network)).fingerprint()
    states = [
        open_clip.create_model(f"local-dir:{folder}").state_dict() for folder in (written, network)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_equal_networks_have_equal_files():
    state, files = {"a": torch.ones(3)}, {f"{n}.json": b"{}" for n in range(4)}
    assert len({serialized_weights(state, files) for _ in range(20)}) == 1


@pytest.mark.parametrize("stored", ["[]", "x", '{"files": 1}'])
def test_digests_of_another_form_are_refused(copy, stored):
    path = copy / WEIGHTS_FILE
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, metadata={"dfn_ray.sha256s": stored}))
    with pytest.raises(InputError, match=r"dfn_ray\.sha256s"):
        pack_network(spec(copy))


def test_another_bit_of_the_weights_is_refused_with_both_digests(copy):
    path = copy / WEIGHTS_FILE
    with safetensors.safe_open(path, "pt") as file:
        expected = json.loads(file.metadata()["dfn_ray.sha256s"])["tensors"]
    flip(path, path.stat().st_size - 2)
    both = rf"its SHA-256 is [0-9a-f]{{64}}, .* {WEIGHTS_FILE} contain {expected}"
    said = f"{WEIGHTS_FILE}: is damaged .* {both}"
    with pytest.raises(InputError, match=said) as caught:
        pack_network(spec(copy))
    assert str(copy) in str(caught.value)
    # Also where the file is named alone, and from an object store.
    with pytest.raises(InputError, match=said):
        read_checkpoint(path)
    with pytest.raises(InputError, match=f"file://{path}: is damaged or was altered"):
        fetch_network(Network(model=f"local-dir:file://{copy}"))


def test_another_config_is_refused_with_both_digests(copy):
    expected = hashlib.sha256((copy / CONFIG).read_bytes()).hexdigest()
    changed = (copy / CONFIG).read_text().replace("bicubic", "bilinear")
    (copy / CONFIG).write_text(changed)
    found = hashlib.sha256(changed.encode()).hexdigest()
    with pytest.raises(
        InputError, match=f"{CONFIG}: is damaged .* SHA-256 is {found}, .* contain {expected}"
    ):
        pack_network(spec(copy))


@pytest.mark.parametrize("name", ["gone.json", "../outside.json", "\0"])
def test_weights_that_were_saved_beside_a_file_that_is_not_there_are_refused(copy, name):
    (copy.parent / "outside.json").write_bytes(b"{}")
    path = copy / WEIGHTS_FILE
    path.write_bytes(serialized_weights(safetensors.torch.load_file(path), {name: b"{}"}))
    with pytest.raises(InputError, match=f"has no '.*', but {WEIGHTS_FILE} was saved with it"):
        pack_network(spec(copy))


def test_a_network_that_was_changed_on_purpose_is_loaded_once_its_weights_are_saved_again(copy):
    changed = (copy / CONFIG).read_text().replace("bicubic", "bilinear")
    (copy / CONFIG).write_text(changed)
    path = copy / WEIGHTS_FILE
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)
    assert pack_network(spec(copy)).transform.interpolation == "bilinear"


def test_a_bit_flipped_anywhere_is_noticed_or_changes_nothing(copy):
    draw = random.Random(0)
    due = pack_network(spec(copy)).fingerprint()
    sizes = {path: path.stat().st_size for path in sorted(copy.iterdir())}
    assert {path.name for path in sizes} == {CONFIG, WEIGHTS_FILE}
    header = 8 + int.from_bytes((copy / WEIGHTS_FILE).read_bytes()[:8], "little")
    refused = 0
    for path, size in sizes.items():
        places: Sequence[int] = range(size)
        if path.name != CONFIG:
            in_header = draw.sample(range(8, header), 60)
            places = (*range(8), *in_header, *draw.sample(range(header, size), 60))
        for place in places:
            bit = draw.randrange(8)
            flip(path, place, bit)
            said = refusal(copy, due, is_config=path.name == CONFIG)
            flip(path, place, bit)
            assert said or path.name != CONFIG
            assert not said or path.name in said
            refused += bool(said)
    assert refused > sizes[copy / CONFIG] + 60
