"""Invalid URIs: every verb rejects them with a message before anything starts."""

from __future__ import annotations

import json

import fsspec
import pytest

from dfn_ray.cli import run
from dfn_ray.config import EvaluateRecipe, Pool, Recipe, TrainRecipe, recipe_from
from dfn_ray.errors import InputError, RecipeError
from dfn_ray.pool import list_pool
from dfn_ray.storage import Store, filesystem, open_uri, read_uri, scan, stat
from dfn_ray.uris import SCHEMES, uri_problem

UNKNOWN = sorted(
    {*fsspec.available_protocols(), "r2", "chain::s3", "simplecache::s3", "x/y", "", "ﬁle"}
    - SCHEMES
)
ODD = {
    "empty": "",
    "blank": " \t",
    "no path": "file://",
    "nothing behind a scheme": "file:",
    "nul": "/a\0b",
    "nul at a store": "s3://b/a\0b",
    "lone surrogate": "/a\ud800b",
    "surrogate at a store": "s3://bucket/a\udcffb",
    "long": "/" + "a/" * 50_000,
    "long name": "/" + "a" * 100_000,
    "long at a store": "s3://bucket/" + "a" * 100_000,
    "no bucket": "s3://",
    "no host": "http:///",
    "unknown": "foo://bucket/x",
    "chain": "simplecache::s3://bucket/x",
}
PATTERNS = {
    "nested braces": "/a/" + "{" * 2000 + "}" * 2000,
    "nested lists": "/a/" + "{a," * 2000 + "}" * 2000,
    "open braces": "/a/" + "{" * 2000,
    "braces in a row": "/a/" + "{a}" * 2000,
    "many braces in a row": "/a/" + "{a,b}" * 2000,
    "brackets": "/a/" + "[" * 2000 + "]" * 2000,
    "open brackets": "/a/" + "[" * 2000,
    "stars": "/a/" + "*a" * 2000,
    "deep stars": "/a" + "/**" * 2000,
    "odd set": "/a/[z-a]*[!]*[[:x:]]",
    "long number": "/a/{0.." + "9" * 5000 + "}.tar",
    "long step": "/a/{0..9.." + "9" * 5000 + "}.tar",
    "long zeros": "/a/{" + "0" * 5000 + "..1}.tar",
    "long letters": "/a/{a..z.." + "9" * 5000 + "}.tar",
}
VERBS = {
    "inspect": ["inspect", "{}"],
    "second pool": ["inspect", "/absent", "{}"],
    "verify": ["verify", "{}"],
    "export": ["export", "{}", "/absent/out"],
    "export to": ["export", "/absent/run", "{}"],
    "export to npy": ["export", "/absent/run", "{}.npy"],
    "compare": ["compare", "{}"],
    "groups": ["compare", "/absent/run", "--groups", "{}"],
    "picture": ["compare", "/absent/run", "--picture", "{}"],
    "recipe": ["filter", "{}"],
    "train recipe": ["train", "{}"],
    "submitted recipe": ["submit", "filter", "{}", "--address", "http://127.0.0.1:9"],
    "uids": ["materialize", "{recipe}", "--uids", "{}", "--out", "/absent/out"],
    "out": ["materialize", "{recipe}", "--out", "{}"],
    "out of uids": ["materialize", "{recipe}", "--uids", "/absent/uids.npy", "--out", "{}"],
    "demo": ["demo", "--out", "{}"],
}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # anything that starts Ray fails for it
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'run_uri = "{tmp_path}/run"\n[pool]\nuri = "{tmp_path}/absent"\n'
        '[[networks]]\nmodel = "ViT-B-32"\nrandom_weights_seed = 0\n'
    )
    return str(path)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("odd", ODD)
def test_every_verb_refuses_an_odd_uri_with_exit_code_2(recipe, capsys, verb, odd):
    words = [recipe if word == "{recipe}" else word.replace("{}", ODD[odd]) for word in VERBS[verb]]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said) < 3000


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_odd_pattern_is_refused_with_exit_code_2(capsys, pattern):
    assert run(["inspect", PATTERNS[pattern]]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("scheme", UNKNOWN)
def test_a_scheme_that_is_not_supported_is_refused_by_name_wherever_a_uri_goes(scheme):
    uri = f"{scheme}://host/x"
    named = rf"the scheme {scheme}:// is not supported.*s3://"
    for use in (filesystem, open_uri, read_uri, stat, scan, lambda uri: Store(uri).list()):
        with pytest.raises(InputError, match=named):
            use(uri)
    with pytest.raises(RecipeError, match=rf"uri.0: .*{named}"):
        recipe_from({"uri": [uri]}, kind=Pool)
    assert uri_problem(f"local-dir:{uri}")


POOL = {"uri": "/absent"}
NETWORK = {"model": "ViT-B-32", "random_weights_seed": 0}
PLACES = {
    "run_uri": (Recipe, lambda uri: {"run_uri": uri, "pool": POOL, "networks": [NETWORK]}),
    "pool.uri.1": (
        Recipe,
        lambda uri: {"run_uri": "/r", "pool": {"uri": ["/a", uri]}, "networks": [NETWORK]},
    ),
    "networks.0.model": (
        Recipe,
        lambda uri: {"run_uri": "/r", "pool": POOL, "networks": [{"model": f"local-dir:{uri}"}]},
    ),
    "networks.0.pretrained": (
        Recipe,
        lambda uri: {
            "run_uri": "/r",
            "pool": POOL,
            "networks": [{"model": "ViT-B-32", "pretrained": uri}],
        },
    ),
    "sources.0.uid_list": (
        TrainRecipe,
        lambda uri: {"run_uri": "/r", "sources": [{"pool": POOL, "uid_list": uri}]},
    ),
    "sources.0.pool.uri.0": (
        TrainRecipe,
        lambda uri: {"run_uri": "/r", "sources": [{"pool": {"uri": uri}}]},
    ),
    "sets.0.pool.uri.0": (
        EvaluateRecipe,
        lambda uri: {"run_uri": "/r", "network": NETWORK, "sets": [{"pool": {"uri": uri}}]},
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("odd", ODD)
def test_every_uri_of_a_recipe_is_checked_and_named(place, odd):
    kind, values = PLACES[place]
    with pytest.raises(RecipeError) as refused:
        recipe_from(values(ODD[odd]), kind=kind)
    assert any(
        line.startswith(f"{place}: need a path or a URI; this ") for line in refused.value.problems
    )
    assert len(str(refused.value)) < 2000


def test_a_recipe_may_write_a_nul_as_an_escape_and_is_refused(recipe, capsys):
    for uri in ("/a\0b", "s3://b/\0"):
        assert run(["filter", recipe, "--set", f"run_uri={json.dumps(uri)}"]) == 2
        assert "run_uri: need a path or a URI; this contains a NUL" in capsys.readouterr().err


@pytest.mark.parametrize(
    "uri",
    [
        "/data/a::b", "/data/x://y", "~/pool", ".", "s3a://b/x", "abfss://c@a.dfs.core.windows.net/x",
        "hf://datasets/o/n", "S3://Bucket/x", "file:///data", "/caf\udce9", "memory://x",
        "s3://b/{" + ",".join(["00000.tar"] * 2000) + "}", "ViT-B-32", "hf-hub:apple/DFN-public",
        "local-dir:/a", "local-dir:s3://b/x", "laion2b_s34b_b79k", "s3://b/文",
    ],
)  # fmt: skip
def test_what_people_mean_passes(uri):
    assert uri_problem(uri) is None


def test_a_relative_name_with_two_colons_is_no_chain_of_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"a:: chains stores.*\./a::b"):
        list_pool(Pool(uri=("a::b",)))


@pytest.mark.parametrize("uri", ["https://host/run", "hf://datasets/o/n/run"])
@pytest.mark.parametrize("verb", ["export to", "picture", "out", "out of uids"])
def test_nothing_is_written_to_what_is_only_read(recipe, capsys, verb, uri):
    words = [recipe if word == "{recipe}" else word.replace("{}", uri) for word in VERBS[verb]]
    assert run(words) == 2
    assert (
        f"cannot be written to: {uri.partition(':')[0]}:// is read-only" in capsys.readouterr().err
    )
    with pytest.raises(RecipeError, match=r"run_uri: .*cannot be written to"):
        recipe_from(PLACES["run_uri"][1](uri), kind=Recipe)
