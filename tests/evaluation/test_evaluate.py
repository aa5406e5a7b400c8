"""Complete evaluations of real sets on a real Ray, against open_clip and plain numpy."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from dfn_ray.config import EvaluateRecipe, recipe_from
from dfn_ray.console.progress import Progress
from dfn_ray.errors import ErrorLimitExceededError, InputError
from dfn_ray.evaluation import evaluate as evaluate_module
from dfn_ray.evaluation.evaluate import check_gathered, evaluate_sets
from dfn_ray.evaluation.gather import Gathered
from dfn_ray.evaluation.sets import locate
from dfn_ray.schema import ShardFault
from dfn_ray.storage import Store
from tests.evaluation.conftest import (
    IMAGES,
    NAMES,
    TEMPLATES,
    captions_of,
    label_of,
    write_folders,
    write_layout,
    write_parquet,
)

# Its fixture takes one minute alone, and has taken three beside other tests.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, network):
    """Makes recipes over the same sets and the same run."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_layout(folder / "layout", task="zeroshot_classification")
    write_folders(folder / "folders")
    write_parquet(folder / "captions" / "0.parquet")
    sets = [
        {"name": "vtab/pets", "pool": {"uri": str(folder / "layout"), "chunk_rows": 8}},
        {
            "name": "wds/imagenet1k",
            "pool": {"uri": str(folder / "folders"), "format": "folder"},
            "templates": "{}",
        },
        {
            "name": "Flickr",
            "task": "zeroshot_retrieval",
            "pool": {
                "uri": str(folder / "captions"),
                "text_column": "captions",
                "chunk_rows": 7,
            },
        },
    ]

    def make(*overrides: str) -> EvaluateRecipe:
        values = {
            "run_uri": str(folder / "run"),
            "network": {"model": f"local-dir:{network}"},
            "sets": sets,
            "scorers": {"threads": 1},
            "max_failed_fraction": 0.2,
        }
        return recipe_from(values, overrides, EvaluateRecipe)

    return make


@pytest.fixture(scope="module")
def evaluation(local_ray, recipe):
    return evaluate_sets(recipe())


def results_of(evaluation):
    return {result.dataset: result for result in evaluation.results}


def test_classification_equals_open_clips_classifier_on_its_embeddings(evaluation, reference):
    image_ND = reference.images()
    labels = np.array([label_of(number) for number in range(IMAGES)])
    for name, templates in (("vtab/pets", TEMPLATES), ("wds/imagenet1k", ("{c}",))):
        scores = image_ND @ reference.classifier(NAMES, templates).T
        predicted = scores.argmax(axis=1)
        top5 = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        recalls = [(predicted[labels == c] == c).mean() for c in np.unique(labels)]
        assert results_of(evaluation)[name].metrics == pytest.approx(
            {
                "acc1": (predicted == labels).mean(),
                "acc5": (top5 == labels[:, None]).any(axis=1).mean(),
                "mean_per_class_recall": np.mean(recalls),
            }
        )


def test_retrieval_equals_plain_numpy_over_open_clips_embeddings(evaluation, reference):
    captions = [captions_of(number) for number in range(IMAGES)]
    of_image = np.repeat(np.arange(IMAGES), [len(lines) for lines in captions])
    scores = reference.texts([line for lines in captions for line in lines]) @ reference.images().T
    expected = {}
    for k in (1, 5, 10):
        images = np.argsort(-scores, axis=1)[:, :k]
        texts = np.argsort(-scores.T, axis=1)[:, :k]
        expected[f"image_retrieval_recall@{k}"] = (images == of_image[:, None]).any(axis=1).mean()
        expected[f"text_retrieval_recall@{k}"] = np.mean(
            [(of_image[row] == number).any() for number, row in enumerate(texts)]
        )
    assert results_of(evaluation)["Flickr"].metrics == pytest.approx(expected)


def test_images_that_fail_are_left_out_and_counted_by_reason(evaluation):
    result = results_of(evaluation)["wds/imagenet1k"]
    assert (result.images, dict(result.failed)) == (IMAGES, {"not_an_image": 1})
    assert results_of(evaluation)["vtab/pets"].failed == {}


def test_a_result_is_a_file_as_clip_benchmark_writes_it(evaluation, recipe, network):
    name = f"eval/vtab_pets__{network.parent.name}_tiny_en_zeroshot_classification.json"
    stored = json.loads(Store(recipe().run_uri).read(name))
    counts = stored.pop("dfn_ray")
    assert stored == {
        "dataset": "vtab/pets",
        "model": f"local-dir:{network}",
        "pretrained": "",
        "task": "zeroshot_classification",
        "metrics": dict(results_of(evaluation)["vtab/pets"].metrics),
        "language": "en",
    }
    assert (counts["images"], counts["failed"]) == (IMAGES, {})


def test_the_recipe_is_stored_in_the_attempt_beside_the_results(evaluation, recipe):
    store = Store(recipe().run_uri)
    (attempt, *_) = store.list("eval_attempts")
    stored = json.loads(store.read(f"eval_attempts/{attempt.name}"))["recipe"]
    assert recipe_from(stored, kind=EvaluateRecipe) == recipe()


def test_datacomps_lines_hold_every_set_with_its_main_metric(evaluation, recipe):
    lines = Store(recipe().run_uri).read("eval_results.jsonl").decode().splitlines()
    values = {value["dataset"]: value for value in map(json.loads, lines)}
    metrics = {name: dict(result.metrics) for name, result in results_of(evaluation).items()}
    assert {name: value["key"] for name, value in values.items()} == {
        "Oxford-IIIT Pet": "vtab/pets",
        "ImageNet 1k": "imagenet1k",
        "Flickr": "retrieval/flickr30k",
    }
    pets = metrics["vtab/pets"]
    assert values["Oxford-IIIT Pet"]["metrics"] == pets | {
        "main_metric": pets["mean_per_class_recall"]
    }
    mean = 0.5 * sum(metrics["Flickr"][f"{side}_retrieval_recall@1"] for side in ("image", "text"))
    assert values["Flickr"]["metrics"]["main_metric"] == mean
    assert values["Flickr"]["metrics"]["mean_recall@1"] == mean
    groups = {name: (group.available, group.tasks) for name, group in evaluation.groups.items()}
    assert groups == {"ImageNet": (1, 1), "VTAB": (1, 13), "Retrieval": (1, 3), "Average": (3, 38)}


def test_sets_with_a_result_are_skipped_and_give_it_back(evaluation, recipe, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_module.chain, "embed_set", None)
    monkeypatch.setattr(evaluate_module.chain, "embed_cells", None)
    again = results_of(evaluate_sets(recipe()))
    metrics = {name: result.metrics for name, result in results_of(evaluation).items()}
    assert {name: result.metrics for name, result in again.items()} == metrics
    assert "3 sets, 3 of them already evaluated" in capsys.readouterr().err
    with pytest.raises(TypeError):  # a stricter recipe takes no result with so many failures
        evaluate_sets(recipe("max_failed_fraction=0.01"))


def test_a_result_of_another_network_or_recipe_is_replaced_and_told(
    local_ray, evaluation, recipe, capsys
):
    store = Store(recipe().run_uri)
    (file,) = [file.name for file in store.list("eval") if file.name.startswith("Flickr")]
    good = json.loads(store.read(f"eval/{file}"))
    stale = good | {"dfn_ray": good["dfn_ray"] | {"fingerprint": "x", "network": "y"}}
    store.write(f"eval/{file}", json.dumps(stale | {"metrics": {}}).encode())
    again = results_of(evaluate_sets(recipe()))["Flickr"]
    assert again.metrics == good["metrics"]
    assert json.loads(store.read(f"eval/{file}")) == good
    assert "Flickr: evaluating again" in capsys.readouterr().err


EMPTY = {"x": (ShardFault.EMPTY, "it contains no sample")}


def gathered(
    images: int, counts: dict[str, int], faults: dict[str, tuple[ShardFault, str]] | None = None
) -> Gathered:
    return Gathered(
        image_ND=np.ones((images, 2), np.float32),
        label_N=np.zeros(images, np.int64),
        counts=Counter(counts),
        faults=faults or {},
    )


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (gathered(79, {"scored": 79, "failed/not_an_image": 21}), r"21 of 100 images failed \(not"),
        (gathered(0, {"failed/bad_label": 1}), r"1 of 1 images failed \(bad_label 1\)"),
        (
            gathered(9, {"scored": 9}, {"s3://x/1.tar": (ShardFault.TRUNCATED, "ends at byte 9")}),
            r"1 of 2 shards are bad, e.g. s3://x/1.tar: truncated_shard: ends at byte 9",
        ),
        (gathered(9, {"scored": 9}, EMPTY), r"1 of 2 shards are bad, e.g. x: empty_shard"),
    ],
)
def test_a_set_that_is_not_whole_gives_no_result(recipe, result, message):
    with pytest.raises(ErrorLimitExceededError, match=f"sets.vtab/pets: {message}"):
        check_gathered(locate(recipe().sets[0]), result, recipe(), Progress(0))


def test_a_class_folder_without_images_is_allowed(recipe):
    folders = locate(recipe().sets[1])
    check_gathered(folders, gathered(9, {"scored": 9}, EMPTY), recipe(), Progress(0))


def test_few_failures_are_allowed_and_told(recipe, capsys):
    few = gathered(80, {"scored": 80, "failed/not_an_image": 15, "failed/nan_score": 5})
    check_gathered(locate(recipe().sets[0]), few, recipe(), Progress(0))
    said = capsys.readouterr().err
    assert (
        "20 of 100 images failed and are excluded from the metrics (not_an_image 15, nan_score 5)"
        in said
    )


def test_wrong_class_names_are_told_before_anything_starts(recipe, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    wrong = recipe(f"sets.1.classnames={tmp_path}/names.txt", f"run_uri={tmp_path}/run")
    with pytest.raises(InputError, match=r"a name for each of 6 class folders.*got 2"):
        evaluate_sets(wrong)
    assert not (tmp_path / "run").exists()
