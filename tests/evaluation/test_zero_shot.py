from __future__ import annotations

import numpy as np
import pytest

from dfn_ray.config import Network, Scorers
from dfn_ray.errors import InputError
from dfn_ray.evaluation.embedder import Embedder
from dfn_ray.evaluation.zero_shot import classifier_cells, classifiers
from dfn_ray.network.packed import pack_network
from dfn_ray.on_ray.cells import pack, unpack
from tests.evaluation.conftest import NAMES, TEMPLATES

MANY = tuple(f"thing {number}" for number in range(70))
CLASSES = [(NAMES, TEMPLATES), (MANY, ("{c}",))]


@pytest.fixture(scope="module")
def embedded(network):
    packed = pack_network(Network(model=f"local-dir:{network}"))
    embedder = Embedder(packed, Scorers(threads=1))
    return [embedder(cell) for cell in unpack(pack(classifier_cells(CLASSES)))]


def test_class_embeddings_are_open_clips_to_1e_5(embedded, reference):
    made = classifiers(CLASSES, reversed(embedded))
    for names, templates in CLASSES:
        class_CD = made[names, templates]
        np.testing.assert_allclose(class_CD, reference.classifier(names, templates), atol=1e-5)
        assert class_CD.dtype == np.float32


def test_a_network_that_gives_nan_is_told_with_the_class(network):
    packed = pack_network(Network(model=f"local-dir:{network}"))
    packed.state["text_projection"][:] = np.nan
    cells = [Embedder(packed, Scorers(threads=1))(cell) for cell in classifier_cells(CLASSES[:1])]
    with pytest.raises(InputError, match="NaN for a prompt of one of cat, dog"):
        classifiers(CLASSES[:1], cells)
