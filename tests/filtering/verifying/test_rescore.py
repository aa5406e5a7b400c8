"""Rescoring of a finished run by verify --rescore."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray import cli
from dfn_ray.errors import FingerprintError, VerificationError
from dfn_ray.filtering.part_files import scores_parquet
from dfn_ray.filtering.verifying.rescore import rescore
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run import open_run, part_file, read_part
from dfn_ray.run.sealed_json import json_bytes
from tests.run.forging import forge_bytes, forge_value, with_value

pytestmark = pytest.mark.ray

ALL = 1000
"""More chunks than exist."""


def replace_part(run: Path, name: str, rows: pa.Table, **header: object) -> str:
    """Replaces rows or header of a part consistently; returns its new name.

    The file name and the lists of names match the new content.
    """
    opened = open_run(str(run))
    part = read_part(opened.store, name)
    data = scores_parquet(rows, part.chunks, replace(part.header, **header))
    return forge_bytes(run, run / part_file(name), data).stem


def kept_sample(run: Path) -> tuple[str, int, Path, int]:
    """The best kept sample: its part and row, and its subset file and row."""
    found = []
    for path in sorted((run / "subset").glob("*.parquet")):
        table = pq.read_table(path, columns=["uid", "score_dfn"])
        found += [
            (score, uid, path, row)
            for row, (uid, score) in enumerate(
                zip(table["uid"].to_pylist(), table["score_dfn"].to_pylist(), strict=True)
            )
        ]
    _, uid, path, row = max(found)
    for name in open_run(str(run)).part_names():
        uids = pq.read_table(run / part_file(name), columns=["uid"])["uid"].to_pylist()
        if uid in uids:
            return name, uids.index(uid), path, row
    raise AssertionError(uid)


def rescored(run: Path) -> str:
    """The line that verify prints about rescoring."""
    said: list[str] = []
    verify_run(str(run), full=True, rescore_chunks=ALL, say=said.append)
    return said[-1]


def test_scores_made_again_are_equal_bit_for_bit(finished, capsys):
    chunks = 6 * 4  # of 16 samples at most, in shards of 50
    run = Path(finished.run_uri)
    assert (
        rescored(run)
        == f"300 samples in {chunks} chunks scored again, {chunks} of them bit for bit"
    )
    assert cli.run(["verify", str(run), "--rescore", "3"]) == 0
    assert " in 3 chunks scored again, 3 of them bit for bit" in capsys.readouterr().out


def test_a_run_scored_on_a_device_that_is_not_here_is_scored_again_on_the_cpu(
    finished, monkeypatch
):
    run = Path(finished.run_uri)
    device = {"device": "cuda", "threads": None}
    for path, *names in (
        (run / "run.json", "fingerprint", "scorers"),
        (run / "attempts/000001.json", "recipe", "scorers"),
    ):
        value = json.loads(path.read_bytes())
        del value["sha256"]
        value[names[0]][names[1]] |= device | ({"gpus": 1.0} if names[0] == "recipe" else {})
        path.write_bytes(json_bytes(value))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    told = str(rescore(open_run(str(run)), 2))
    assert "in 2 chunks scored again" in told
    assert (
        "on the CPU, because the run was scored on cuda, which this machine does not have" in told
    )


def change_a_score(run: Path, by: float) -> tuple[str, str]:
    """Changes a score in scores and subset alike; returns the sample and its part.

    All file names match the new content.
    """
    name, row, file, kept_row = kept_sample(run)
    rows = pq.read_table(run / part_file(name))
    score = float(np.float32(rows["score_dfn"][row].as_py() + by))
    called = replace_part(run, name, with_value(rows, "score_dfn", row, score))
    forge_value(file, "score_dfn", kept_row, score)
    return f"{rows['shard'][row].as_py()} row {rows['row'][row].as_py()}", called


def test_a_score_altered_wherever_it_is_stored_is_named_when_it_is_made_again(finished, capsys):
    run = Path(finished.run_uri)
    sample, part = change_a_score(run, 1e-3)
    verify_run(str(run), full=True)
    with pytest.raises(
        VerificationError, match=rf"{part}\.parquet: score_dfn of {sample} is .*, scored again "
    ):
        rescored(run)
    assert cli.run(["verify", str(run), "--rescore", str(ALL)]) == 1
    assert sample in capsys.readouterr().err


def of_another_environment(run: Path) -> None:
    for name in open_run(str(run)).part_names():
        rows = pq.read_table(run / part_file(name))
        replace_part(run, name, rows, environments=("of another machine",))


@pytest.mark.parametrize(("by", "holds"), [(0.0, True), (1e-6, True), (1e-3, False)])
def test_scores_of_another_environment_may_differ_by_the_tolerance(finished, by, holds):
    run = Path(finished.run_uri)
    if by:
        change_a_score(run, by)
    of_another_environment(run)
    verify_run(str(run), full=True)
    if not holds:
        with pytest.raises(VerificationError, match=r"score_dfn of .* scored again"):
            rescored(run)
        return
    said = rescored(run)
    assert "0 of them bit for bit, 24 scored in another environment within 1e-05, at most " in said
    assert (float(said.rsplit(" ", 1)[1]) > 0) is bool(by)


@pytest.mark.parametrize(("name", "value"), [("key", "other"), ("width", 41), ("uid", "0" * 32)])
def test_a_row_that_is_not_the_pools_is_named_when_it_is_made_again(finished, name, value):
    run = Path(finished.run_uri)
    part = open_run(str(run)).part_names()[0]
    rows = pq.read_table(run / part_file(part))
    low = int(np.argmin(rows["score_dfn"].to_numpy()))  # not in the subset
    replace_part(run, part, with_value(rows, name, low, value))
    verify_run(str(run), full=True)
    with pytest.raises(VerificationError, match=f"{name} of .* is .*{value}.*, scored again "):
        rescored(run)


def test_with_other_networks_nothing_is_scored_again(finished, other_network, tmp_path):
    run = Path(finished.run_uri)
    (path,) = sorted((run / "attempts").iterdir())
    value = json.loads(path.read_bytes())
    del value["sha256"]
    value["recipe"]["networks"][0]["model"] = f"local-dir:{other_network}"
    path.write_bytes(json_bytes(value))
    with pytest.raises(FingerprintError, match="cannot be scored again with the same settings"):
        verify_run(str(run), rescore_chunks=1)
