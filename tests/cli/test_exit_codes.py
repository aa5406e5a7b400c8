"""Exit codes: 2 for what the user can change before a run, 1 for what went wrong in it."""

from __future__ import annotations

import inspect
import socket

import numpy as np
import pytest

from dfn_ray import errors
from dfn_ray.cli import run
from dfn_ray.errors import DfnRayError
from dfn_ray.uids.records import UID_DTYPE

FILTER = '[pool]\nuri = "{pool}"\n[[networks]]\nmodel = "ViT-B-32"\nrandom_weights_seed = 0\n'

CODES = {
    "InputError": 2,
    "RecipeError": 2,
    "FingerprintError": 2,
    "MissingFileError": 2,
    "StorageAccessError": 2,
}
"""Every other error: 1."""


def test_the_table_of_errors_has_every_class_and_its_code():
    found = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, DfnRayError) and kind.__module__ == errors.__name__
    }
    assert {name for name, code in found.items() if code == 2} == set(CODES)
    assert set(found.values()) == {1, 2}
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in found)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a filtering recipe over a pool."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def write(pool="absent", run_uri=None):
        path = tmp_path / "recipe.toml"
        uri = run_uri or f"{tmp_path}/run"
        path.write_text(f'run_uri = "{uri}"\n' + FILTER.format(pool=f"{tmp_path}/{pool}"))
        return str(path)

    return write


def dead_endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "{folder}/no-run"],
        ["export", "{folder}/no-run", "{folder}/list.npy"],
        ["compare", "{folder}/no-run", "{folder}/neither"],
        ["inspect", "{folder}/no-pool"],
        ["inspect", "foo://bucket/pool"],
        ["filter", "{folder}/no-recipe.toml"],
        ["filter", "{recipe}"],
        ["select", "{recipe}"],
        ["filter", "{recipe}", "--set", "decode.mode=fst"],
        ["filter", "{recipe}", "--set", "run_uri=foo://bucket/run"],
        ["filter", "{recipe}", "--budget", "much"],
        ["train", "{recipe}"],
        ["materialize", "{recipe}", "--uids", "{folder}/wrong.npy", "--out", "{folder}/out"],
        ["materialize", "{recipe}", "--uids", "{folder}/absent.npy", "--out", "{folder}/out"],
        ["submit", "filter", "{recipe}", "--address", "{dead}"],
    ],
    ids=lambda arguments: " ".join(word.strip("{}") for word in arguments)[:60],
)
def test_a_mistake_of_the_user_is_2_and_one_message_without_a_traceback(
    tmp_path, recipe, capsys, arguments
):
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    values = {"folder": tmp_path, "recipe": recipe(), "dead": dead_endpoint()}
    assert run([word.format(**values) for word in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"dfn-ray {arguments[0]}: ")
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["filter", "score", "select", "materialize", "plan", "doctor"])
def test_a_recipe_without_networks_serves_uid_lists_only(tmp_path, capsys, verb):
    from dfn_ray.testing.sample_pools import write_pool

    pool, recipe = write_pool(tmp_path / "pool", shards=1, samples=2), tmp_path / "recipe.toml"
    recipe.write_text(f'run_uri = "{tmp_path}/run"\npool.uri = "{pool}"\n')
    np.save(tmp_path / "list.npy", np.zeros(0, UID_DTYPE))
    listed = ["--uids", f"{tmp_path}/list.npy", "--out", f"{tmp_path}/out", "--dry-run"]
    assert run(["materialize", str(recipe), *listed]) == 0
    assert run([verb, str(recipe)]) == 2
    assert "networks: need at least one [[networks]], got none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_verb_that_does_not_exist_is_2(capsys):
    assert run(["fliter"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dfn-ray: no such verb: fliter. Did you mean filter?\n")


def test_nothing_wrong_is_0(tmp_path, capsys):
    from dfn_ray.testing.sample_pools import write_pool

    write_pool(tmp_path / "pool", shards=1, samples=2)
    assert run(["inspect", str(tmp_path / "pool")]) == 0
    assert "2 read" in capsys.readouterr().out
