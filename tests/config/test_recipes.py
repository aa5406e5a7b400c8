from __future__ import annotations

import ast
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import dfn_ray
from dfn_ray.config import Network, Recipe, TrainRecipe, recipe_from, recipe_values
from dfn_ray.config.recipe_files import load_recipe
from dfn_ray.errors import InputError, MissingFileError, RecipeError
from dfn_ray.storage import Store

VALUES = {
    "run_uri": "run",
    "pool": {"uri": "pool/*.tar"},
    "networks": [{"model": "ViT-B-32", "pretrained": "openai"}],
}


def test_a_resolved_recipe_reads_back_as_itself():
    recipe = recipe_from(VALUES, ["networks.0.precision=bf16", "select.keep_fraction=0.3"])
    assert recipe.networks[0].precision == "bf16"
    assert recipe.select.keep_fraction == 0.3
    assert recipe_from(recipe_values(recipe)) == recipe


def test_every_mistake_is_reported_at_once_by_dotted_name_with_its_value():
    with pytest.raises(RecipeError) as refusal:
        recipe_from(
            VALUES | {"surprise": 1, "scorers": {"min_size": 2, "max_size": 1}},
            ["decode.mode=fst", "pool.chunk_rows=0", "calibration.sample=9"],
        )
    text = str(refusal.value)
    assert "surprise: no such setting" in text
    assert "scorers.min_size: need 1 <= min_size <= max_size, got 2 and 1" in text
    assert "decode.mode: need 'exact' or 'fast', got 'fst'" in text
    assert "pool.chunk_rows: need 1 <= chunk_rows <= 65536, got 0" in text
    assert "calibration.sample: no such setting" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.keep_count=5", "exactly one of keep_fraction, keep_count and threshold"),
        ("select.keep_fraction=1.5", "need 0.0 <= keep_fraction <= 1.0, got 1.5"),
        ("scorers.device=cuda", "needs gpus > 0"),
        ("networks.0.random_weights_seed=1", "got both"),
        ("networks.1.name=x", "'1' is not one of the 1 items"),
        ("networks.0.name=a-b", "need letters, digits and _"),
        ("select.network=other", "need one of dfn, got 'other'"),
        ("networks.precision=bf16", "networks is a list: name an item, e.g. networks.0.precision"),
        ("networks.0=x", r"networks is a list: set the whole list, networks=\[\.\.\.\]"),
        ("pool", "need section.key=value"),
        ("run_uri.x=1", "is a value, not a section"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_needed(override, message):
    values = VALUES | {"select": {"keep_fraction": 0.1}}
    with pytest.raises(RecipeError, match=message):
        recipe_from(values, [override])


@pytest.mark.parametrize(("model", "hinted"), [("apple/DFN-public", True), ("ViT-L/14", False)])
def test_a_repository_named_without_its_schema_gets_a_hint(model, hinted):
    with pytest.raises(RecipeError, match="pretrained: need a tag") as refused:
        Network(model=model)
    assert (f"model is hf-hub:{model}" in str(refused.value)) == hinted


def test_credentials_in_uris_are_refused_by_dotted_name_and_not_repeated():
    values = {
        "run_uri": "s3://key:hunter2@bucket/run",
        "pool": {"uri": ["s3://bucket/a.tar", "https://host/b.tar?X-Amz-Signature=hunter2"]},
        "networks": [{"model": "local-dir:s3://key:hunter2@bucket/network"}],
    }
    with pytest.raises(RecipeError) as refusal:
        recipe_from(values)
    assert [problem.partition(":")[0] for problem in refusal.value.problems] == [
        "run_uri",
        "pool.uri.1",
        "networks.0.model",
    ]
    assert "hunter2" not in str(refusal.value)


def test_none_turns_a_setting_off():
    values = VALUES | {"select": {"keep_fraction": 0.1}}
    recipe = recipe_from(values, ["select.keep_fraction=none", "select.keep_count=5"])
    assert recipe.select.keep_count == 5


def test_a_missing_or_broken_recipe_file_is_reported(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        load_recipe(tmp_path / "absent.toml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "broken.toml").write_text("run_uri = ")
    with pytest.raises(RecipeError, match="not TOML"):
        load_recipe(tmp_path / "broken.toml")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("run_uri = 1979-05-27", " run_uri: no setting takes a date or a time, got 1979-05-27"),
        ("pool = {uri = [1979-05-27T07:32:00Z]}", r" pool\.uri\.0: no setting takes a date"),
        ("pool = {uri = 07:32:00}", r" pool\.uri: no setting takes a date or a time, got 07:32"),
        (f"pool = {'[' * 5000}", "nested too deeply"),
        (f"pool = {'[' * 400}{']' * 400}", "."),
        (f"pool = {{chunk_rows = {'1' * 5000}}}", "not TOML|pool: .{,200}$"),
    ],
    ids=["date", "timestamp", "time", "open brackets", "brackets", "digits"],
)
def test_values_that_toml_knows_and_recipes_do_not_are_mistakes_like_others(
    tmp_path, setting, says
):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(setting)
    name, _, value = setting.partition(" = ")
    for refused in (
        partial(load_recipe, recipe),
        partial(recipe_from, VALUES, [f"{name}={value}"]),
    ):
        with pytest.raises(RecipeError, match=says):
            refused()


def test_a_recipe_without_read_permission_is_reported(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    # Root may read everything, so no mode of a real file does it here.
    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    with pytest.raises(RecipeError, match="cannot be read: Permission denied"):
        load_recipe(tmp_path / "recipe.toml")


def test_a_recipe_is_loaded_from_a_store_as_from_a_file_with_overrides_and_of_any_kind(tmp_path):
    text = 'run_uri = "run"\n[pool]\nuri = "pool/*.tar"\n'
    training = 'run_uri = "run"\nscale = "small"\n[[sources]]\npool = {uri = "p"}\n'
    for name, written, kind in (("f.toml", text, Recipe), ("t.toml", training, TrainRecipe)):
        (tmp_path / name).write_text(written)
        Store("memory://recipes").write(name, written.encode())
        here = dfn_ray.load_recipe(tmp_path / name, ["run_uri=there"], kind)
        assert (type(here), here.run_uri) == (kind, "there")
        for uri in (f"memory://recipes/{name}", f"file://{tmp_path}/{name}"):
            assert dfn_ray.load_recipe(uri, ["run_uri=there"], kind) == here
            assert dfn_ray.load_recipe(uri, ["run_uri=there"], None) == here
    with pytest.raises(MissingFileError, match="memory://recipes/absent"):
        dfn_ray.load_recipe("memory://recipes/absent.toml")
    with pytest.raises(RecipeError, match=r"pool.chunk_row: no such setting"):
        dfn_ray.load_recipe("memory://recipes/f.toml", ["pool.chunk_row=1"])
    with pytest.raises(InputError) as refused:
        dfn_ray.load_recipe("s3://key:hunter2@bucket/recipe.toml")
    assert "hunter2" not in str(refused.value)


def test_importing_and_loading_a_recipe_loads_no_ray_no_torch_and_no_client_of_a_store(tmp_path):
    (tmp_path / "recipe.toml").write_text('run_uri = "run"\n[pool]\nuri = "pool/*.tar"\n')
    heavy = {"ray", "torch", "fsspec", "pyarrow", "numpy"}
    code = (
        "import sys, dfn_ray.cli, dfn_ray.config.recipe_files as files; "
        f"files.load_recipe({str(tmp_path / 'recipe.toml')!r}); "
        f"print({heavy!r} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        # DataComp, table 14, and DFN, table 7
        ("small", ("ViT-B-32", 12_800_000, 4096, 5e-4, 500, 0.98, 0.2)),
        ("medium", ("ViT-B-32", 128_000_000, 4096, 5e-4, 500, 0.98, 0.2)),
        ("large", ("ViT-B-16", 1_280_000_000, 8192, 5e-4, 500, 0.98, 0.2)),
        ("xlarge", ("ViT-L-14", 12_800_000_000, 90_112, 1e-3, 10_000, 0.95, 0.2)),
        ("dfn5b", ("ViT-H-14", 39_000_000_000, 79_872, 2e-3, 10_000, 0.95, 0.1)),
    ],
)
def test_a_scale_fills_in_what_the_papers_say(scale, expected):
    values = {"run_uri": "r", "scale": scale, "sources": [{"pool": {"uri": "p"}}]}
    recipe = recipe_from(values, kind=TrainRecipe)
    found = recipe.optimizer
    assert expected == (
        recipe.model.model,
        recipe.samples_seen,
        recipe.batch_size,
        found.learning_rate,
        found.warmup_steps,
        found.beta2,
        found.weight_decay,
    )


def test_what_a_recipe_says_itself_wins_over_its_scale():
    values = {"run_uri": "r", "scale": "small", "sources": [{"pool": {"uri": "p"}}]}
    overrides = ["optimizer.learning_rate=1e-3", "samples_seen=99999", "model.pretrained=openai"]
    recipe = recipe_from(values, overrides, TrainRecipe)
    assert recipe.optimizer.learning_rate == 1e-3
    assert recipe.optimizer.warmup_steps == 500
    assert recipe.samples_seen == 99_999
    assert recipe.model.model == "ViT-B-32"
    assert recipe.model.random_weights_seed is None


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("samples_seen=10", "samples_seen: need at least one batch"),
        ("model.precision=fp16", "model.precision: need fp32 or bf16"),
        ("ensemble_alpha=0.5", "ensemble_alpha: needs weights to start from"),
        ("workers.min_size=2", "workers.min_size: need 1 <= min_size <= max_size, got 2 and 1"),
        ("workers.max_size=0", "workers.max_size: need max_size >= 1, got 0"),
        ("sources.0.pool.caption=label", "labels: [sources.labels] and pool.caption"),
        ("accumulate=99999", "batch_size: need a sample for each"),
    ],
)
def test_wrong_training_settings_are_named(override, problem):
    values = {"run_uri": "r", "scale": "small", "sources": [{"pool": {"uri": "p"}}]}
    with pytest.raises(RecipeError) as error:
        recipe_from(values, [override], TrainRecipe)
    assert problem in str(error.value)


def test_a_misspelt_setting_gets_a_suggestion():
    with pytest.raises(
        RecipeError, match=r"select\.keep_fracton: no such setting; did you mean keep_fraction\?"
    ):
        recipe_from(VALUES, ["select.keep_fracton=0.1"])


def test_a_setting_of_another_section_is_suggested_with_its_section():
    with pytest.raises(
        RecipeError, match=r"pool\.gpus: no such setting; did you mean scorers\.gpus\?"
    ):
        recipe_from(VALUES, ["pool.gpus=1"])
    with pytest.raises(RecipeError, match=r"did you mean decode\.cpus or scorers\.cpus\?"):
        recipe_from(VALUES, ["pool.cpus=1"])


def test_labels_and_resources_of_nodes_are_tables_of_the_recipe():
    recipe = recipe_from(
        VALUES, ['decode.labels={dfn-role = "decode"}', "scorers.resources.slot=0.5"]
    )
    assert recipe.decode.labels == {"dfn-role": "decode"}
    assert recipe.scorers.resources == {"slot": 0.5}
    assert recipe_from(recipe_values(recipe)) == recipe


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("scorers.resources.GPU=1", "scorers.resources.GPU: need a custom resource; cpus and gpus"),
        ("decode.resources.slot=0", "decode.resources.slot: need resources.slot > 0, got 0"),
        (
            'decode.labels.zone="!a"',
            "decode.labels.zone: need letters, digits and . _ - /, got '!a'",
        ),
        ("decode.labels.!a=zone", "decode.labels.!a: need letters, digits and . _ - /, got '!a'"),
    ],
)
def test_a_placement_that_no_node_can_have_is_named(override, problem):
    with pytest.raises(RecipeError, match=problem):
        recipe_from(VALUES, [override])


def test_every_setting_is_documented_where_it_stands():
    from dfn_ray import config

    bare = [
        f"{path.name}: {node.name}.{setting.target.id}"
        for path in Path(config.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for setting, behind in zip(node.body, [*node.body[1:], None], strict=True)
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name)
        if not (isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant))
    ]
    assert bare == []
