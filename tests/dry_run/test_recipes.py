"""A dry run checks everything that a recipe names, without Ray or torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dfn_ray.cli import run
from dfn_ray.testing.sample_pools import jpeg_bytes, write_pool
from dfn_ray.uids.records import UID_DTYPE
from tests.dry_run.conftest import run_alone

MODEL = 'model = "local-dir:{folder}/network"'
RECIPES = {
    "filter": 'pool.uri = "{folder}/pool"\n[[networks]]\n' + MODEL,
    "train": (
        'samples_seen = 64\nbatch_size = 8\n[[sources]]\npool = {{uri = "{folder}/pool"}}\n'
        'uid_list = "{folder}/list.npy"\n[model]\n' + MODEL
    ),
    "evaluate": (
        '[[sets]]\nname = "pets"\nclassnames = "{folder}/names.txt"\n'
        'pool = {{uri = "{folder}/classes", format = "folder"}}\n[network]\n' + MODEL
    ),
    "pipeline": (
        'pool = {{uri = "{folder}/pool"}}\n'
        "[train]\nsamples_seen = 64\nbatch_size = 8\n[train.model]\n" + MODEL + "\n"
        "[[filter.networks]]\n" + MODEL + "\n"
        '[[evaluate.sets]]\nname = "pets"\nclassnames = "{folder}/names.txt"\n'
        'pool = {{uri = "{folder}/classes", format = "folder"}}'
    ),
}
KIND = {"score": "filter", "plan": "filter"}
VERBS = ("filter", "score", "plan", "train", "evaluate", "pipeline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network) -> Path:
    """Everything the recipes name: a pool, a network, a uid list, class folders and their names."""
    folder = tmp_path_factory.mktemp("named")
    write_pool(folder / "pool", shards=2, samples=2)
    (folder / "network").symlink_to(network)
    np.save(folder / "list.npy", np.zeros(3, UID_DTYPE))
    for name in ("0", "1"):
        (folder / "classes" / name).mkdir(parents=True)
        (folder / "classes" / name / "0.jpg").write_bytes(jpeg_bytes())
    (folder / "names.txt").write_text("cat\ndog\n")
    for kind, text in RECIPES.items():
        head = 'run_uri = "{folder}/run"\n'
        (folder / f"{kind}.toml").write_text((head + text).format(folder=folder))
    return folder


def recipe_of(verb: str, folder: Path) -> str:
    return str(folder / f"{KIND.get(verb, verb)}.toml")


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_checks_everything_and_loads_neither_ray_nor_torch(verb, folder):
    code, said = run_alone(verb, recipe_of(verb, folder), "--dry-run", cwd=folder)
    assert code == 0, said
    lines = said[json.JSONDecoder().raw_decode(said)[1] :].splitlines()
    found = {line[8:22].strip(): line[24:] for line in lines if line.startswith("ok ")}
    network = next(text for name, text in found.items() if "network" in name or "model" in name)
    assert "open_clip's layout, weights open_clip_model.safetensors" in network
    if verb in ("filter", "score", "plan", "pipeline"):
        assert found["pool"].startswith("2 shards, ")
    if verb == "train":
        assert found["source pairs"].startswith("2 shards, ")
        assert "3 uids" in found["uid list"]
    if verb in ("evaluate", "pipeline"):
        assert found["set pets"].startswith("zeroshot_classification, 2 shards")
        assert found["classes"] == "2 class names, 80 templates"
    if verb == "pipeline":
        assert {"network dfn", "train.model"} <= set(found)
    assert not (folder / "run").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_that_does_not_exist_is_2_and_named_with_its_setting(verb, folder, capsys):
    setting, place = {
        "train": ("model.model", "model.model"),
        "evaluate": ("network.model", "network.model"),
        "pipeline": ("train.model.model", "train.model.model"),
    }.get(verb, ("networks.0.model", "networks.0.model"))
    wrong = f"{setting}=local-dir:{folder}/netwrok"
    assert run([verb, recipe_of(verb, folder), "--dry-run", "--set", wrong]) == 2
    said = capsys.readouterr().err
    assert f"{place}: local-dir:{folder}/netwrok: need a folder with open_clip_config.json" in said


def test_every_mistake_is_named_in_one_go(folder, capsys):
    wrong = [
        "model.model=local-dir:/none",
        f"sources.0.pool.uri={folder}/nothing",
        f"sources.0.uid_list={folder}/names.txt",
    ]
    sets = [word for setting in wrong for word in ("--set", setting)]
    assert run(["train", recipe_of("train", folder), "--dry-run", *sets]) == 2
    said = capsys.readouterr().err
    assert "3 things to change" in said
    for part in ("local-dir:/none", f"no shards at {folder}/nothing", "names.txt: is text"):
        assert part in said


POOL_LIMITS = {
    "filter": ("pool.uri", "execution.max_bad_shard_fraction"),
    "score": ("pool.uri", "execution.max_bad_shard_fraction"),
    "plan": ("pool.uri", "execution.max_bad_shard_fraction"),
    "train": ("sources.0.pool.uri", "max_bad_shard_fraction"),
    "pipeline": ("pool.uri", "filter.execution.max_bad_shard_fraction"),
}
"""Settings of the pool and of the allowed share of bad shards, by verb."""


def holed_pool(root: Path, fault: str) -> str:
    """A pattern for six shards, two of which are bad by the listing alone."""
    write_pool(root / "pool", shards=6, samples=1)
    tars = sorted((root / "pool").glob("*.tar"))
    for tar in tars[:4] if fault == "unfinished_shard" else ():
        tar.with_name(f"{tar.stem}_stats.json").write_text("{}")
    for tar in tars[4:] if fault == "missing_shard" else ():
        tar.unlink()
    return f"{root}/pool/{{{tars[0].stem}..{tars[5].stem}}}.tar"


@pytest.mark.parametrize("verb", POOL_LIMITS)
@pytest.mark.parametrize("fault", ["missing_shard", "unfinished_shard"])
def test_bad_shards_of_a_listing_are_reported_and_checked_against_the_limit(
    verb, fault, folder, capsys, tmp_path
):
    uri, limit = POOL_LIMITS[verb]
    words = [verb, recipe_of(verb, folder), "--dry-run", "--set"]
    words += [f'{uri}="{holed_pool(tmp_path, fault)}"', "--set"]
    assert run([*words, f"{limit}=0.3"]) == 2
    said = capsys.readouterr()
    (line,) = (line for line in said.out.splitlines() if line.startswith("CHANGE"))
    assert f"2 of them bad (2 {fault}), the first is {tmp_path}/pool/" in line
    assert f"more than {limit} = 0.3 allows" in line
    assert f"more than {limit} = 0.3 allows" in said.err
    assert run([*words, f"{limit}=0.34"]) == 0
    said = capsys.readouterr().out
    assert f"2 of them bad (2 {fault}), the first is {tmp_path}/pool/" in said
    assert "CHANGE" not in said


def test_bad_shards_are_reported_without_a_limit_when_a_uid_list_is_copied(
    folder, capsys, tmp_path
):
    words = ["materialize", recipe_of("filter", folder), "--dry-run", "--out", f"{tmp_path}/out"]
    words += ["--uids", f"{folder}/list.npy", "--set"]
    assert run([*words, f'pool.uri="{holed_pool(tmp_path, "missing_shard")}"']) == 0
    assert "2 of them bad (2 missing_shard)" in capsys.readouterr().out


def test_class_names_that_do_not_fit_or_are_absent_are_2(folder, capsys, tmp_path):
    (tmp_path / "names.txt").write_text("cat\n")
    for names, said in (
        (f"{tmp_path}/names.txt", "need a name for each of 2 class folders"),
        (f"{tmp_path}/none.txt", "class names: need a text file"),
    ):
        for verb, setting in (("evaluate", "sets.0"), ("pipeline", "evaluate.sets.0")):
            words = ["--dry-run", "--set", f"{setting}.classnames={names}"]
            assert run([verb, recipe_of(verb, folder), *words]) == 2
            assert said in capsys.readouterr().err
    words = ["--dry-run", "--set", 'sets.0.templates="a photo"']
    assert run(["evaluate", recipe_of("evaluate", folder), *words]) == 2
    assert "templates: need {} or {c}" in capsys.readouterr().err


def test_a_uid_list_of_materialize_is_checked(folder, capsys, tmp_path):
    words = ["materialize", recipe_of("filter", folder), "--dry-run", "--out", f"{tmp_path}/out"]
    assert run([*words, "--uids", f"{folder}/list.npy"]) == 0
    assert f"ok      uid list        {folder}/list.npy, 3 uids, 176 B" in capsys.readouterr().out
    assert run([*words, "--uids", f"{folder}/absent.npy"]) == 2
    assert "absent.npy" in capsys.readouterr().err


def test_without_a_network_a_hubs_repository_is_not_checked_and_that_is_0(folder, tmp_path):
    offline = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_CACHE", str(tmp_path))]
    words = ["--dry-run", "--set", "networks.0.model=hf-hub:apple/DFN-public"]
    code, said = run_alone(
        "filter", recipe_of("filter", folder), *words, cwd=folder, environment=offline
    )
    assert code == 0, said
    assert "skip    network dfn     not checked: no internet connection" in said


@pytest.mark.parametrize("verb", ["train", "evaluate", "pipeline"])
def test_the_doctor_takes_recipes_of_every_verb(verb, folder, capsys):
    recipe = recipe_of(verb, folder)
    assert run(["doctor", recipe]) == 0
    said = capsys.readouterr().out
    assert "CHANGE" not in said
    assert f"from the driver: can write, list, read and delete at {folder}/run" in " ".join(
        said.split()
    )
    os.rename(folder / "names.txt", folder / "gone.txt")
    try:
        assert run(["doctor", recipe]) == (0 if verb == "train" else 1)
        assert ("CHANGE  classes" in capsys.readouterr().out) == (verb != "train")
    finally:
        os.rename(folder / "gone.txt", folder / "names.txt")
    code, said = run_alone("doctor", recipe, "--dry-run", cwd=folder)
    assert code == 0, said
