"""Class embeddings: the normalised mean over templates of normalised prompt embeddings.

See CLIP, section 3.1.4; equal to open_clip's build_zero_shot_classifier and CLIP_benchmark's
zero_shot_classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dfn_ray.errors import InputError
from dfn_ray.evaluation.embedder import TEXTS, prompt_cells
from dfn_ray.evaluation.sets import Classes
from dfn_ray.on_ray.cells import Cell


def classifier_cells(classes: Sequence[Classes]) -> list[Cell]:
    """Returns the prompts of all classes; a cell's shard is the position of its classes."""
    return [
        cell
        for place, (names, templates) in enumerate(classes)
        for cell in prompt_cells(str(place), names, templates)
    ]


def classifiers(classes: Sequence[Classes], embedded: Iterable[Cell]) -> dict[Classes, np.ndarray]:
    """Returns class embeddings (C, D), float32, L2-normalised, from embedded `classifier_cells`.

    Raises InputError if the network returns no finite embedding for a prompt.
    """
    parts: dict[tuple[int, int], np.ndarray] = {}
    for cell in embedded:
        place = int(cell.chunk.shard)
        names, templates = classes[place]
        if cell.inputs is None or cell.inputs.num_rows < cell.chunk.rows:
            some = ", ".join(names[cell.chunk.first_row :][:3])
            raise InputError(
                f"the network returns NaN for a prompt of one of {some}, ...; check its weights "
                "and precision"
            )
        # Reduced here, so that 80 prompts per class are never held for all classes.
        parts[place, cell.chunk.first_row] = np.stack(
            [
                _class_embedding(
                    np.frombuffer(value.as_buffer(), np.float32).reshape(len(templates), -1)
                )
                for value in cell.inputs[TEXTS]
            ]
        )
    return {
        item: np.concatenate([parts[key] for key in sorted(parts) if key[0] == place])
        for place, item in enumerate(classes)
    }


def _class_embedding(prompt_TD: np.ndarray) -> np.ndarray:
    mean_D = prompt_TD.mean(axis=0)
    return mean_D / np.linalg.norm(mean_D)
