from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.cli import run
from dfn_ray.config import recipe_values
from dfn_ray.config.recipe_files import load_recipe
from dfn_ray.filtering.scoring.fingerprint import settings_fingerprint
from dfn_ray.pool import list_shards, listing_table
from dfn_ray.run import RunIdentity, RunKind, start_run
from dfn_ray.testing.sample_pools import jpeg_bytes, photo, write_tar_shard

RECIPE = """
run_uri = "{folder}/run"
[pool]
uri = "{folder}/pool/*.tar"
[[networks]]
model = "ViT-B-32"
random_weights_seed = 0
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    samples = [{"key": f"{n}", "image": jpeg_bytes(), "caption": "grey"} for n in range(3)]
    write_tar_shard(str(tmp_path / "pool" / "0.tar"), samples)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path


def test_a_dry_run_prints_the_resolved_recipe_and_the_plan_and_starts_nothing(recipe, capsys):
    assert run(["filter", str(recipe), "--dry-run", "--set", "select.keep_fraction=0.3"]) == 0
    said = capsys.readouterr().out
    resolved, _ = json.JSONDecoder().raw_decode(said)
    assert resolved["select"]["keep_fraction"] == 0.3
    assert "shards" in said.rpartition("}")[2]
    assert not (recipe.parent / "run").exists()


def test_a_recipe_may_be_a_uri(recipe, capsys):
    assert run(["filter", f"file://{recipe}", "--dry-run"]) == 0
    assert f'"run_uri": "{recipe.parent}/run"' in capsys.readouterr().out
    recipe.write_bytes(b"not toml \xff")
    assert run(["filter", f"file://{recipe}", "--dry-run"]) == 2
    assert f"file://{recipe}: not TOML" in capsys.readouterr().err
    assert run(["filter", f"file://{recipe}x", "--dry-run"]) == 2
    assert f"file://{recipe}x" in capsys.readouterr().err


def test_a_dry_run_loads_neither_ray_nor_torch(recipe):
    code = (
        "import sys; from dfn_ray.cli import run; "
        f"code = run(['filter', {str(recipe)!r}, '--dry-run']); "
        "print(code, {'ray', 'torch'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "0 set()"


def test_a_dry_run_refuses_what_the_run_would_refuse_at_once(recipe, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_bytes(b"x")
    stored = tmp_path / "stored"
    loaded = load_recipe(recipe)
    shards = list_shards(loaded.pool)
    start_run(
        str(stored),
        RunIdentity(
            kind=RunKind.FILTER,
            fingerprint=settings_fingerprint(loaded, shards),
            listing=listing_table(shards),
        ),
        recipe=recipe_values(loaded),
    )
    assert run(["filter", str(recipe), "--dry-run", "--set", f"run_uri={stored}"]) == 0
    for changes, named in (
        (["run_uri=foo://bucket/run"], "the scheme foo:// is not supported"),
        ([f"run_uri={tmp_path}/mine"], "contains notes.txt but no run.json"),
        ([f"run_uri={tmp_path}/mine/notes.txt"], "is a file; need a folder"),
        ([f"run_uri={stored}", "decode.max_pixels=9"], "decode.max_pixels: run has 89478485"),
    ):
        sets = [word for change in changes for word in ("--set", change)]
        assert run(["filter", str(recipe), "--dry-run", *sets]) == 2
        assert named in capsys.readouterr().err


def test_wrong_input_exits_2_with_every_mistake(recipe, capsys):
    assert run(["filter", str(recipe), "--set", "decode.mode=fst", "--set", "pool.x=1"]) == 2
    said = capsys.readouterr().err
    assert "decode.mode" in said
    assert "pool.x: no such setting" in said


def test_an_empty_pool_exits_2_before_anything_starts(recipe, capsys, tmp_path):
    empty = f"pool.uri={tmp_path}/nothing/*.tar"
    assert run(["filter", str(recipe), "--dry-run", "--set", empty]) == 2
    assert "no shards at" in capsys.readouterr().err


def test_verifying_what_is_no_run_exits_2(tmp_path, capsys):
    assert run(["verify", str(tmp_path)]) == 2
    assert "contains no run" in capsys.readouterr().err


def test_inspect_shows_format_counts_and_example_rows(recipe, capsys):
    assert run(["inspect", str(recipe.parent / "pool")]) == 0
    said = capsys.readouterr().out
    assert "1 tar" in said
    assert "3 readable" in said
    assert "grey" in said
    assert "8x8" in said


def test_inspect_takes_the_settings_of_a_pool_of_labels(tmp_path, capsys):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / "0.png").write_bytes(photo(number))
    settings = ["--set", "format=folder", "--set", "caption=label"]
    assert run(["inspect", str(tmp_path / "classes"), *settings]) == 0
    assert "2 readable" in capsys.readouterr().out
    table = pa.table({"photo": [photo(1)], "cls": [3]})
    pq.write_table(table, tmp_path / "0.parquet")
    settings = ["--set", "image_column=photo", "--set", "caption=label"]
    assert run(["inspect", str(tmp_path / "0.parquet"), *settings]) == 0
    assert "1 readable" in capsys.readouterr().out
    assert run(["inspect", str(tmp_path / "0.parquet"), "--set", "imagecolumn=photo"]) == 2
    assert "imagecolumn" in capsys.readouterr().err


def test_the_entry_points_answer_help():
    for command in ([sys.executable, "-m", "dfn_ray.cli", "--help"],
                    [sys.executable, "jobs/filter_pool.py", "--help"],
                    [sys.executable, "jobs/evaluate_clip.py", "--help"]):  # fmt: skip
        root = Path(__file__).parents[2]
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
        assert "Usage: dfn-ray" in told.stdout


EVALUATION = """
run_uri = "{folder}/run"
[network]
model = "ViT-B-32"
random_weights_seed = 0
[[sets]]
name = "pets"
pool = {{uri = "{folder}/images", format = "folder"}}
"""


@pytest.fixture
def evaluation(tmp_path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.jpg").write_bytes(jpeg_bytes())
    path = tmp_path / "evaluation.toml"
    path.write_text(EVALUATION.format(folder=tmp_path))
    return path


def test_a_dry_run_of_evaluate_shows_its_sets_without_ray_or_torch(evaluation):
    code = (
        "import sys; from dfn_ray.cli import run; "
        f"code = run(['evaluate', {str(evaluation)!r}, '--dry-run', '--set', 'sets.0.name=own']); "
        "print(code, {'ray', 'torch'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, last = told.stdout.splitlines()
    size = 2 * len(jpeg_bytes())
    assert f"ok      set own         zeroshot_classification, 2 shards, {size:,} bytes" in lines
    assert "ok      classes         2 class names, 80 templates" in lines
    assert "ok      network         ViT-B-32, random weights" in lines
    assert last == "0 set()"
    assert not (evaluation.parent / "run").exists()


def test_an_evaluation_recipe_with_mistakes_exits_2_with_all_of_them(evaluation, capsys):
    wrong = ["--set", "sets.0.task=linear", "--set", "select.keep_fraction=1"]
    assert run(["evaluate", str(evaluation), *wrong]) == 2
    said = capsys.readouterr().err
    assert "sets.0.task" in said
    assert "select: no such setting" in said


@pytest.mark.parametrize("verb", ["filter", "score"])
def test_a_run_in_its_own_pool_is_refused_before_anything_is_written(recipe, capsys, verb):
    pool = recipe.parent / "pool"
    sets = ["--set", f"pool.uri={pool}", "--set", f"run_uri={pool}/run"]
    for more in (["--dry-run"], []):
        assert run([verb, str(recipe), *sets, *more]) == 2
        assert f"run_uri: {pool}/run lies in the pool" in capsys.readouterr().err
    assert [path.name for path in pool.iterdir()] == ["0.tar"]
    hidden = ["--set", f"pool.uri={pool}", "--set", f"run_uri={pool}/.run"]
    assert run([verb, str(recipe), *hidden, "--dry-run"]) == 0


def test_a_dry_run_and_a_look_say_what_the_listing_left_out(recipe, capsys):
    pool = recipe.parent / "pool"
    write_tar_shard(str(pool / ".Trash" / "0.tar"), [])
    (pool / "1.tar.xz").write_bytes(b"")
    for command in (
        ["filter", str(recipe), "--dry-run", "--set", f"pool.uri={pool}"],
        ["inspect", str(pool)],
    ):
        assert run(command) == 0
        said = capsys.readouterr().out
        assert "pool: 1 hidden folders" in said
        assert "pool: 1 files look like shards but are not read" in said
