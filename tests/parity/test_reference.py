"""Files of scores: the choice of their column, and the files that are rejected."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.errors import InputError
from dfn_ray.parity.reference import read_reference
from dfn_ray.uids.records import UID_DTYPE, uid_records

UIDS = [f"{n:032x}" for n in (7, 3, 5)]
B32 = {"vision_cfg": {"layers": 12, "width": 768, "patch_size": 32}}
L14 = {"vision_cfg": {"layers": 24, "width": 1024, "patch_size": 14}}


@pytest.fixture
def parquet(tmp_path):
    def write(**columns):
        path = tmp_path / "scores.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write


def read(uri, column=None, model_cfg=None, network="dfn"):
    return read_reference(uri, column, model_cfg=model_cfg or {}, network=network)


def test_scores_are_found_by_uid_in_any_order_and_absent_ones_are_marked(parquet):
    reference = read(parquet(uid=UIDS, score=[0.7, None, 0.5]))
    has, scores = reference.scores_of([UIDS[1], "f" * 32, UIDS[0]])
    assert has.tolist() == [True, False, True]
    np.testing.assert_array_equal(scores, [np.nan, np.nan, 0.7])
    assert not reference.is_half
    assert read(parquet(uid=UIDS, score=[0.5, 0.25, None])).is_half


def test_datacomps_columns_are_chosen_by_the_vision_tower(parquet):
    uri = parquet(
        uid=UIDS,
        clip_b32_similarity_score=[0.1] * 3,
        clip_l14_similarity_score=[0.2] * 3,
        original_width=[3] * 3,
    )
    assert read(uri, model_cfg=B32).column == "clip_b32_similarity_score"
    assert read(uri, model_cfg=L14).column == "clip_l14_similarity_score"
    assert read(uri, "clip_l14_similarity_score", model_cfg=B32).scores.tolist() == [0.2] * 3
    with pytest.raises(
        InputError, match="--column: clip_b32_similarity_score, clip_l14_similarity_score"
    ):
        read(uri)


def test_a_part_of_a_run_is_a_reference_by_the_networks_name(parquet):
    uri = parquet(uid=UIDS, score_dfn=[0.1] * 3, score_other=[0.2] * 3)
    assert read(uri).column == "score_dfn"
    assert read(uri, network="other").column == "score_other"


@pytest.mark.parametrize("uids", [np.array(UIDS), uid_records(pa.array(UIDS))])
def test_npz_has_uids_as_text_or_as_records(tmp_path, uids):
    np.savez(tmp_path / "scores.npz", uid=uids, mine=np.array([0.7, 0.3, 0.5]))
    reference = read(str(tmp_path / "scores.npz"))
    assert reference.column == "mine"
    assert reference.uids.dtype == UID_DTYPE
    assert reference.scores_of(UIDS)[1].tolist() == [0.7, 0.3, 0.5]


def test_uids_with_several_scores_are_ignored_and_counted(parquet):
    uri = parquet(uid=[*UIDS, UIDS[0], UIDS[1]], score=[0.7, 0.3, 0.5, 0.8, 0.3])
    reference = read(uri)
    assert reference.ambiguous == 1
    assert reference.scores_of(UIDS)[0].tolist() == [False, True, True]


def test_other_files_are_rejected_with_the_reason(parquet, tmp_path):
    for columns, said in (
        ({"key": UIDS, "score": [0.1] * 3}, "need a column uid"),
        ({"uid": ["1", "2", "3"], "score": [0.1] * 3}, "uids must have 32 hex digits"),
        (
            {"uid": UIDS, "score": [34.0, 20.0, 3.0]},
            "need cosine similarities from -1 to 1, got up to 34",
        ),
        ({"uid": UIDS, "text": ["a"] * 3}, "Choose one with --column: none"),
    ):
        with pytest.raises(InputError, match=said):
            read(parquet(**columns))
    (tmp_path / "text.parquet").write_text("uid,score\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(str(tmp_path / "text.parquet"))
    np.savez(tmp_path / "pickled.npz", uid=np.array([object()]), score=np.zeros(1))
    with pytest.raises(InputError, match="without pickles"):
        read(str(tmp_path / "pickled.npz"))


def archive(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def damaged(data: bytes):
    """Every seventh prefix of a file, and the file with every seventh byte changed."""
    for place in range(0, len(data), 7):
        yield data[:place]
        yield data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize("name", ["scores.npz", "scores.parquet"])
def test_a_damaged_file_is_an_input_error_or_read(parquet, tmp_path, name):
    data = archive(uid=np.array(UIDS), score=np.array([0.1, 0.2, 0.3]))
    if name.endswith(".parquet"):
        data = Path(parquet(uid=UIDS, score=[0.1, 0.2, 0.3])).read_bytes()
    path = tmp_path / f"damaged-{name}"
    refused = 0
    for content in damaged(data):
        path.write_bytes(content)
        try:
            read(str(path))
        except InputError as error:
            refused += str(path) in str(error)
    assert refused > len(data) // 7


@pytest.mark.parametrize(
    "arrays",
    [
        {"uid": np.array(3), "score": np.zeros(3)},
        {"uid": np.arange(3), "score": np.zeros(3)},
        {"uid": np.zeros(3, [("a", "i4")]), "score": np.zeros(3)},
        {"uid": np.array([["a"]]), "score": np.zeros((1, 1))},
    ],
    ids=["scalar", "numbers", "records", "two dimensions"],
)
def test_uids_of_another_form_are_refused(tmp_path, arrays):
    (tmp_path / "scores.npz").write_bytes(archive(**arrays))
    with pytest.raises(InputError, match=r"scores\.npz"):
        read(str(tmp_path / "scores.npz"))


def test_two_columns_of_one_name_are_refused(tmp_path):
    score = pa.array([0.1, 0.2, 0.3])
    table = pa.Table.from_arrays([pa.array(UIDS), score, score], ["uid", "score", "score"])
    pq.write_table(table, tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="got two named score"):
        read(str(tmp_path / "scores.parquet"))
