"""A finished run with one alteration at a time: verify names file, sample and both values."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray import cli
from dfn_ray.errors import DamagedRunError, VerificationError
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run.sealed_json import json_bytes
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of
from tests.run.forging import forge, forge_value

Alter = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run of 42 samples, half of them kept."""
    folder = tmp_path_factory.mktemp("tampering")
    pool = write_pool(folder / "pool", shards=3, samples=14)
    filter_without_ray(recipe_of(folder / "run", pool, 0.5))
    return folder / "run"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of the finished run, to be altered."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def part_of(run: Path) -> Path:
    """The part with the most kept samples, all of whose statuses are `scored`."""
    return max(files(run, "scores"), key=lambda path: (len(kept_in(run, path)), path))


def kept_in(run: Path, part: Path) -> list[int]:
    """Ordinals of the rows of a part that are in the subset."""
    kept = {uid for path in files(run, "subset") for uid in column(path, "uid")}
    return [n for n, uid in enumerate(column(part, "uid")) if uid in kept]


def subset_file_of(run: Path) -> Path:
    """The subset file with the most samples."""
    return max(files(run, "subset"), key=lambda path: (len(column(path, "uid")), path))


def files(run: Path, folder: str) -> list[Path]:
    return sorted((run / folder).glob("*.parquet"))


def column(path: Path, name: str) -> list:
    return pq.read_table(path, columns=[name])[name].to_pylist()


def one(run: Path, pattern: str) -> Path:
    (path,) = run.glob(pattern)
    return path


def sample_at(path: Path, row: int) -> str:
    """The name of a sample in messages."""
    return f"{column(path, 'shard')[row]} (.* )?row {column(path, 'row')[row]} "


IN_SUBSET = {
    "key": ("other", "'other'"),
    "width": (9, "is 9, its scores have 8"),
    "height": (9, "is 9, its scores have 8"),
    "uid": ("0" * 32, "'0{32}'"),
    "score_dfn": (0.75, "is 0.75, its scores have 0"),
    "image": (b"other", "has 5 bytes with SHA-256 [0-9a-f]+, the pool [0-9]+ bytes with SHA-256 "),
    "text": ("other", "has 'other', the pool 'picture"),
    "metadata": ('{"uid": "other"}', "has .*other.*, the pool .*test"),
}
"""Column of the subset -> another value, and its description in the message."""


@pytest.mark.parametrize("name", IN_SUBSET)
def test_an_altered_value_of_a_kept_sample_is_named_with_its_sample(run, name):
    value, said = IN_SUBSET[name]
    path = subset_file_of(run)
    where = re.escape(column(path, "shard")[1]), column(path, "row")[1]
    path = forge_value(path, name, 1, value)
    with pytest.raises(VerificationError) as caught:
        verify_run(str(run))
    message = str(caught.value)
    assert re.search(said, message, re.DOTALL), message
    assert path.name in message
    assert re.search(rf"{name} of (samples of )?{where[0]}.*row {where[1]} ", message), message


def test_the_difference_of_two_long_strings_is_shown(run):
    path = subset_file_of(run)
    before = column(path, "text")[1]
    path = forge_value(path, "text", 1, f"{before}{'x' * 500}!")
    with pytest.raises(VerificationError, match=r"has .*many'?x+.*, the pool .*many'"):
        verify_run(str(run))
    path = forge_value(path, "text", 1, before)
    forge_value(path, "metadata", 1, column(path, "metadata")[1].replace("test", "tes!"))
    with pytest.raises(VerificationError, match=r"has \.\.\..*tes!.*, the pool \.\.\..*test"):
        verify_run(str(run))


def move_score(run: Path, by: float) -> tuple[Path, int]:
    """Changes the score of a kept sample in its part; returns the part and the row."""
    part = part_of(run)
    row = kept_in(run, part)[0]
    score = column(part, "score_dfn")[row]
    return forge_value(part, "score_dfn", row, score + by), row


def test_a_score_that_no_longer_is_the_subsets_is_named_with_its_sample(run):
    part, row = move_score(run, 1e-3)
    sample = f"{re.escape(column(part, 'shard')[row])} row {column(part, 'row')[row]} "
    with pytest.raises(VerificationError, match=f"score_dfn of {sample}is 0.*, its scores have 0"):
        verify_run(str(run))


def test_a_score_that_changes_the_selection_is_noticed_with_both_values(run):
    move_score(run, -10)
    with pytest.raises(VerificationError, match=r"selection\.json: .* is .*, the scores yield "):
        verify_run(str(run))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("status", "failed", "failed: its footer has null, its rows has 1"),
        ("reason", "nan_score", "scored/nan_score: its footer has null, its rows has 1"),
        ("row", 99, "it has .* row 99 instead of .* row "),
    ],
)
def test_an_altered_status_reason_or_row_of_a_part_is_named(run, name, value, said):
    part = part_of(run)
    part = forge_value(part, name, 0, value)
    with pytest.raises(VerificationError, match=f"{part.name}: .*{said}"):
        verify_run(str(run))


@pytest.mark.parametrize("key", ["k", "counts", "threshold", "samples", "last_tie", "network"])
def test_an_altered_selection_is_noticed_with_its_digest_or_without(run, key):
    path = run / "selection.json"
    value = json.loads(path.read_bytes())
    other = {"counts": {"scored": 41, "failed/nan_score": 1}, "network": "other"}.get(key, 1)
    path.write_text(json.dumps({**value, key: other}))
    with pytest.raises(DamagedRunError, match=r"selection\.json: is damaged or was altered"):
        verify_run(str(run))
    del value["sha256"]
    path.write_bytes(json_bytes({**value, key: other}))
    with pytest.raises(VerificationError, match=r"selection\.json|other"):
        verify_run(str(run))


def test_an_altered_pool_listing_is_noticed(run):
    forge_value(run / "pool.parquet", "name", 0, "other.tar")
    with pytest.raises(VerificationError, match=r"pool\.parquet: was altered: it lists .*digest"):
        verify_run(str(run))


def test_the_shard_of_a_kept_sample_set_to_one_that_is_none_of_the_pools_is_named(run):
    path = forge_value(subset_file_of(run), "shard", 0, "elsewhere.tar")
    with pytest.raises(
        VerificationError, match=rf"{path.name}: has row .* of elsewhere\.tar, which"
    ):
        verify_run(str(run))


@pytest.mark.parametrize(
    ("name", "value"), [("uid", "not a uid"), ("uid", None), ("shard", None), ("row", None)]
)
def test_what_is_no_uid_and_no_place_is_named(run, name, value):
    path = subset_file_of(run)
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    values = [value, *table[name].to_pylist()[1:]]
    field = pa.field(name, table.schema.field(name).type)
    path = forge(path, table.set_column(at, field, pa.array(values, field.type)))
    with pytest.raises(
        VerificationError, match=f"{path.name}: .*uid|{path.name}: .*without {name}"
    ):
        verify_run(str(run))


@pytest.mark.parametrize("name", ["uid", "key", "image", "text", "metadata", "width", "score_dfn"])
def test_a_column_that_the_subset_lacks_is_named(run, name):
    path = files(run, "subset")[0]
    path = forge(path, pq.read_table(path).drop_columns([name]))
    with pytest.raises(DamagedRunError, match=f"{path.name}: is damaged: it lacks {name}"):
        verify_run(str(run))


@pytest.mark.parametrize("name", ["uid", "status", "row", "score_dfn"])
def test_a_column_that_a_part_lacks_is_named(run, name):
    path = part_of(run)
    path = forge(path, pq.read_table(path).drop_columns([name]))
    with pytest.raises(DamagedRunError, match=f"{path.name}: is damaged: it lacks {name}"):
        verify_run(str(run))


OWN_FILES: dict[str, Callable[[Path], Path]] = {
    "run.json": lambda run: run / "run.json",
    "selection.json": lambda run: run / "selection.json",
    "pool.parquet": lambda run: run / "pool.parquet",
    "a part": part_of,
    "a subset file": subset_file_of,
    "the uid list": lambda run: run / "subset_uids.npy",
    "an attempt": lambda run: run / "attempts/000001.json",
    "the list of files": lambda run: one(run, "files-*.txt"),
    "the list of parts": lambda run: one(run, "parts-*.txt"),
}


@pytest.mark.parametrize("which", OWN_FILES)
def test_an_absent_file_is_a_broken_promise(run, which, capsys):
    path = OWN_FILES[which](run)
    path.unlink()
    with pytest.raises(VerificationError, match=path.name):
        verify_run(str(run))
    assert cli.run(["verify", str(run)]) == 1
    assert path.name in capsys.readouterr().err


@pytest.mark.parametrize("which", OWN_FILES)
def test_a_file_that_is_cut_or_has_a_flipped_bit_is_named(run, which):
    # Each length and each byte of them is tried in test_own_files.py, by the reader of the file
    # alone.
    path = OWN_FILES[which](run)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for data in (
        b"",
        whole[:middle],
        whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :],
    ):
        path.write_bytes(data)
        with pytest.raises(VerificationError, match=path.name):
            verify_run(str(run), full=True)
        assert cli.run(["verify", str(run), "--full"]) == 1
    path.write_bytes(whole)
    verify_run(str(run), full=True)


@pytest.mark.parametrize("which", ["run.json", "selection.json", "an attempt", "bounds/dfn.json"])
@pytest.mark.parametrize(
    "value",
    [{}, [], "text", 3, None, {"format": 2}, {"format": "2"}, {"state": "final"}, {"token": 1}],
)
def test_json_of_another_shape_is_damage(run, which, value):
    path = OWN_FILES[which](run) if which in OWN_FILES else run / which
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedRunError, match=f"{path.name}: is damaged"):
        verify_run(str(run))
    assert cli.run(["verify", str(run)]) == 1


@pytest.mark.parametrize("which", ["pool.parquet", "a part", "a subset file"])
def test_parquet_of_another_shape_is_damage(run, which):
    path = OWN_FILES[which](run)
    pq.write_table(pa.table({"other": [1, 2]}), path)
    with pytest.raises(DamagedRunError, match=f"{path.name}: (is damaged|commits no chunks)"):
        verify_run(str(run))


def test_an_attempt_that_parts_are_named_by_is_missed(run, whole):
    recipe = recipe_of(
        run, Path(json.loads((run / "run.json").read_bytes())["recipe"]["pool"]["uri"][0]), 0.5
    )
    filter_without_ray(recipe)
    assert sorted(path.name for path in (run / "attempts").iterdir()) == [
        "000001.json",
        "000002.json",
    ]
    verify_run(str(run), full=True)
    (run / "attempts/000001.json").unlink()
    with pytest.raises(DamagedRunError, match=r"attempts/000001\.json: is missing"):
        verify_run(str(run))


def test_a_uid_list_that_is_not_the_subsets_is_named_with_the_uid_and_both_counts(run):
    path = run / "subset_uids.npy"
    uids = np.load(path)
    uids[0] = (0, 1)
    np.save(path, uids)
    with pytest.raises(
        VerificationError, match=r"subset_uids\.npy: .* is listed [01] times and [01] times in"
    ):
        verify_run(str(run))


def test_a_run_rewritten_without_altering_a_value_keeps_every_promise(run):
    for path in files(run, "subset"):
        table = pq.read_table(path)
        forge(path, table.take(pa.array(range(len(table)))[::-1]), compression="GZIP")
    for path in files(run, "scores"):
        forge(path, pq.read_table(path), compression="NONE")
    for path in run.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_bytes())))
    path = run / "pool.parquet"
    forge(path, pq.read_table(path), compression="NONE")
    np.save(run / "subset_uids.npy", np.load(run / "subset_uids.npy"))
    verify_run(str(run), full=True)


@pytest.mark.parametrize("which", ["pool.parquet", "a part", "a subset file"])
def test_a_file_that_another_program_wrote_is_noticed_though_its_values_are_equal(run, which):
    path = OWN_FILES[which](run)
    pq.write_table(pq.read_table(path), path, write_page_checksum=True)
    with pytest.raises(
        DamagedRunError, match=f"{path.name}: is damaged: it does not match its digest"
    ):
        verify_run(str(run))


def test_where_no_run_is_the_exit_code_is_that_of_a_mistake(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for uri in (tmp_path / "absent", tmp_path / "folder"):
        assert cli.run(["verify", str(uri)]) == 2
        assert "contains no run" in capsys.readouterr().err


def _flipped(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


BREACHES: dict[str, Alter] = {
    **{f"part flipped at {at}": lambda run, at=at: _flipped(part_of(run), at) for at in (0.1, 0.9)},
    **{
        f"subset at {at}": lambda run, at=at: _flipped(subset_file_of(run), at) for at in (0.1, 0.9)
    },
    "uid list unsorted": lambda run: np.save(
        run / "subset_uids.npy", np.load(run / "subset_uids.npy")[::-1]
    ),
    "uid list flipped": lambda run: _flipped(run / "subset_uids.npy", 0.5),
    "part absent": lambda run: part_of(run).unlink(),
    "subset file absent": lambda run: subset_file_of(run).unlink(),
    "listing cut": lambda run: (run / "pool.parquet").write_bytes(b"PAR1"),
    "score moved": lambda run: move_score(run, 1e-3),
}


@pytest.mark.slow
@pytest.mark.parametrize("breach", BREACHES)
def test_verify_as_a_process_ends_with_its_exit_code_and_never_by_a_signal(run, breach):
    # A thread that still reads when the interpreter ends aborts it: signal 6.
    BREACHES[breach](run)
    command = [sys.executable, "-m", "dfn_ray.cli", "verify", str(run), "--full"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
