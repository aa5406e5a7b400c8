"""The location of sets and the sources of their class names, without Ray."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dfn_ray.config import EvaluateRecipe, EvaluationSet, Pool, recipe_from
from dfn_ray.errors import InputError, RecipeError
from dfn_ray.evaluation.sets import locate
from tests.evaluation.conftest import NAMES, write_folders, write_layout


def evaluation_set(uri, task="zeroshot_classification", format="auto", **settings) -> EvaluationSet:
    return EvaluationSet(name="x", pool=Pool(uri=(str(uri),), format=format), task=task, **settings)


@pytest.mark.parametrize("named", ["", "/", "/test"])
def test_clip_benchmarks_layout_is_read_from_its_root_or_its_split(tmp_path, named):
    root = write_layout(tmp_path / "root", task="zeroshot_classification")
    located = locate(evaluation_set(f"{root}{named}"))
    assert [shard.uri for shard in located.shards] == [f"{root}/test/{n}.tar" for n in range(2)]
    assert located.classnames == (f"{root}/classnames.txt",)
    assert located.templates == (f"{root}/zeroshot_classification_templates.txt",)
    assert located.pool.caption == "label"


def test_another_split_is_read_when_it_is_named(tmp_path):
    root = write_layout(tmp_path / "root", task="zeroshot_classification")
    located = locate(evaluation_set(root, split="train"))
    assert [shard.uri for shard in located.shards] == [f"{root}/train/0.tar"]
    with pytest.raises(InputError, match=r"no val/nshards\.txt"):
        locate(evaluation_set(root, split="val"))


def test_what_the_recipe_states_wins_over_the_layout(tmp_path):
    root = write_layout(tmp_path / "root", task="zeroshot_classification")
    located = locate(evaluation_set(root, classnames=("a", "b"), templates=("simple",)))
    assert (located.classnames, located.templates) == (("a", "b"), ("simple",))


def test_a_layout_of_another_task_is_refused(tmp_path):
    root = write_layout(tmp_path / "root", task="zeroshot_retrieval")
    spec = evaluation_set(root, "zeroshot_retrieval")
    assert locate(spec).pool.caption == "lines"
    listed = replace(spec, pool=replace(spec.pool, caption="list"))
    assert locate(listed).pool.caption == "list"
    with pytest.raises(InputError, match=r"dataset_type\.txt says 'retrieval'"):
        locate(evaluation_set(root))
    (root / "dataset_type.txt").write_text("multilabel\n")
    with pytest.raises(InputError, match="says 'multilabel'"):
        locate(evaluation_set(root))


@pytest.mark.parametrize("count", ["0", "-1", "two", "\u0663", "1" * 5000, "9" * 12, ""])
def test_a_number_of_tars_that_no_set_has_is_told(tmp_path, count):
    root = write_layout(tmp_path / "root", task="zeroshot_classification")
    (root / "test/nshards.txt").write_text(count)
    with pytest.raises(InputError, match="need the number of tars"):
        locate(evaluation_set(root))


def test_a_tar_that_nshards_counts_but_is_absent_is_told(tmp_path):
    root = write_layout(tmp_path / "root", task="zeroshot_classification")
    (root / "test/nshards.txt").write_text("3")
    with pytest.raises(InputError, match=r"test/2\.tar: missing_shard; the set is incomplete"):
        locate(evaluation_set(root))


def test_class_folders_name_the_classes_unless_the_recipe_does(tmp_path):
    root = write_folders(tmp_path / "root")
    located = locate(evaluation_set(root, format="folder"))
    assert located.classnames == NAMES
    assert located.templates == ("openai",)
    named = locate(evaluation_set(root, format="folder", classnames=("imagenet",)))
    assert named.classnames == ("imagenet",)
    assert named.class_folders == 6


def test_several_roots_must_have_the_same_class_folders(tmp_path):
    roots = tuple(str(write_folders(tmp_path / name)) for name in ("a", "b"))
    two = EvaluationSet(name="x", pool=Pool(uri=roots, format="folder"))
    assert len(locate(two).shards) == 12
    assert locate(two).classnames == NAMES
    (tmp_path / "b" / "aardvark").mkdir()
    with pytest.raises(InputError, match="different class folders"):
        locate(two)


def test_labels_without_names_are_told(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"sets\.x\.classnames: need names"):
        locate(evaluation_set(tmp_path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sets.0.task=zeroshot_retrieval", "retrieval uses neither classnames nor templates"),
        ("sets.0.language=", "language: need a text"),
        ("sets.1.name=a_b", "need distinct names, got 'a_b' twice"),
        (
            "sets.0.pool.caption=labels",
            "sets.0.pool.caption: need 'text', 'lines', 'list' or",
        ),
        ("max_failed_fraction=2", "need 0.0 <= max_failed_fraction <= 1.0, got 2"),
        ("sets.0.surprise=1", "sets.0.surprise: no such setting"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_needed(override, message):
    values = {
        "run_uri": "run",
        "network": {"model": "ViT-B-32", "pretrained": "openai"},
        "sets": [
            {"name": "a/b", "pool": {"uri": "x"}, "classnames": ["a"]},
            {"name": "c", "pool": {"uri": "x"}},
        ],
    }
    assert recipe_from(values, (), EvaluateRecipe).sets[0].classnames == ("a",)
    with pytest.raises(RecipeError, match=message):
        recipe_from(values, [override], EvaluateRecipe)
