"""DataComp's evaluation suite as data: names, main metrics, groups.

Source: tasklist.yml and aggregate_scores.py of github.com/mlfoundations/datacomp. FairFace and
UTKFace have no main metric there, which leaves 38 tasks in the average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MEAN_RECALL = "mean_recall@1"
"""Half the sum of both recalls at 1 (eval_utils/retr_eval.py)."""


@dataclass(frozen=True)
class Task:
    """A task of the suite."""

    name: str
    """Name in `eval_results.jsonl` and in the groups."""
    main_metric: str = "acc1"
    group: str | None = None


SHIFTS, VTAB, RETRIEVAL = "ImageNet dist. shifts", "VTAB", "Retrieval"
_RECALL = "mean_per_class_recall"

TASKS: Mapping[str, Task] = {
    "vtab/caltech101": Task("Caltech-101", _RECALL, VTAB),
    "cifar10": Task("CIFAR-10"),
    "vtab/cifar100": Task("CIFAR-100", group=VTAB),
    "vtab/clevr_count_all": Task("CLEVR Counts", group=VTAB),
    "vtab/clevr_closest_object_distance": Task("CLEVR Distance", group=VTAB),
    "country211": Task("Country211"),
    "vtab/dtd": Task("Describable Textures", group=VTAB),
    "vtab/eurosat": Task("EuroSAT", group=VTAB),
    "fgvc_aircraft": Task("FGVC Aircraft", _RECALL),
    "food101": Task("Food-101"),
    "gtsrb": Task("GTSRB"),
    "imagenet1k": Task("ImageNet 1k", group="ImageNet"),
    "imagenet_sketch": Task("ImageNet Sketch", group=SHIFTS),
    "imagenetv2": Task("ImageNet v2", group=SHIFTS),
    "imagenet-a": Task("ImageNet-A", group=SHIFTS),
    "imagenet-o": Task("ImageNet-O", group=SHIFTS),
    "imagenet-r": Task("ImageNet-R", group=SHIFTS),
    "vtab/kitti_closest_vehicle_distance": Task("KITTI Vehicle Distance", group=VTAB),
    "mnist": Task("MNIST"),
    "objectnet": Task("ObjectNet", group=SHIFTS),
    "vtab/flowers": Task("Oxford Flowers-102", _RECALL, VTAB),
    "vtab/pets": Task("Oxford-IIIT Pet", _RECALL, VTAB),
    "voc2007": Task("Pascal VOC 2007"),
    "vtab/pcam": Task("PatchCamelyon", group=VTAB),
    "renderedsst2": Task("Rendered SST2"),
    "vtab/resisc45": Task("RESISC45", group=VTAB),
    "cars": Task("Stanford Cars"),
    "stl10": Task("STL-10"),
    "sun397": Task("SUN397", group=VTAB),
    "vtab/svhn": Task("SVHN", group=VTAB),
    "retrieval/flickr30k": Task("Flickr", MEAN_RECALL, RETRIEVAL),
    "retrieval/mscoco_2014_5k_test_image_text_retrieval": Task("MSCOCO", MEAN_RECALL, RETRIEVAL),
    "misc/winogavil": Task("WinoGAViL", "jaccard_score_10-12", RETRIEVAL),
    "wilds/iwildcam": Task("iWildCam", "F1-macro_all"),
    "wilds/camelyon17": Task("Camelyon17"),
    "wilds/fmow": Task("FMoW", "acc_worst_region"),
    "fairness/dollar_street": Task("Dollar Street", "acc_top5_wg"),
    "fairness/geode": Task("GeoDE", "acc_wg"),
}
"""By key; tasks whose main metric dfn_ray does not compute count as missing."""

_KEYS = {task.name: key for key, task in TASKS.items()}


@dataclass(frozen=True)
class GroupAverage:
    """The mean of the available main metrics of a group's tasks."""

    mean: float
    available: int
    """Number of tasks in the mean."""
    tasks: int
    """Number of tasks in the group."""


def key_of(name: str) -> str:
    """Returns DataComp's key of a set's name, key or `wds/KEY` (CLIP_benchmark), else the name."""
    name = name.removeprefix("wds/")
    return _KEYS.get(name, name)


def group_averages(main_metrics: Mapping[str, float | None]) -> dict[str, GroupAverage]:
    """Returns the mean of each group with an available task, with DataComp's `Average` last.

    `main_metrics` are by key. Sets that are not DataComp's belong to no group.
    """
    values: dict[str, list[float]] = {}
    for key, value in main_metrics.items():
        if key in TASKS and value is not None:
            for group in _groups_of(TASKS[key]):
                values.setdefault(group, []).append(value)
    return {
        group: GroupAverage(float(np.mean(values[group])), len(values[group]), tasks)
        for group, tasks in _SIZES.items()
        if group in values
    }


def _groups_of(task: Task) -> list[str]:
    return [*([task.group] if task.group else []), "Average"]


_SIZES = {
    group: sum(group in _groups_of(task) for task in TASKS.values())
    for group in ("ImageNet", SHIFTS, VTAB, RETRIEVAL, "Average")
}
