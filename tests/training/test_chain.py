"""The samples planned for a worker, and those planned for another generation."""

from __future__ import annotations

import pytest
import torch

from dfn_ray.errors import RunTakenOverError
from dfn_ray.training.chain import batches


class Samples:
    """A fake of a worker's share of a Ray Dataset: one batch for each generation given."""

    def __init__(self, *planned_for: list[int]) -> None:
        self._planned_for = planned_for

    def iter_torch_batches(self, **_settings):
        for generations in self._planned_for:
            yield {"place": torch.arange(2), "generation": torch.tensor(generations)}


def test_a_worker_that_took_the_name_of_its_successors_ends_at_its_first_batch():
    theirs = batches(Samples([3, 3], [2, 3]), batch_size=2, prefetch=1, generation=3)  # pyright: ignore[reportArgumentType]
    assert list(next(theirs)) == ["place"]
    with pytest.raises(
        RunTakenOverError, match="generation 3 received samples planned for generation 2"
    ):
        next(theirs)
