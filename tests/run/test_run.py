from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.errors import (
    DamagedRunError,
    FingerprintError,
    IncompleteRunError,
    InputError,
    RunTakenOverError,
    StorageError,
)
from dfn_ray.run import (
    RUN,
    Acceptance,
    Ledger,
    PartHeader,
    RunIdentity,
    RunKind,
    content_name,
    differences,
    fingerprint_digest,
    open_run,
    parquet_bytes,
    part_file,
    part_footer,
    read_part,
    resuming,
    scan_ledger,
    scored_sizes,
    start_run,
)
from dfn_ray.schema import Chunk, ShardFault
from dfn_ray.storage import Store
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.http_server import Fault, serve_http

LISTING = pa.table(
    {
        "uri": ["a.tar"],
        "name": ["a.tar"],
        "size_bytes": pa.array([7], pa.int64()),
        "fault": pa.array([None], pa.string()),
    }
)


def start(
    uri, *, fingerprint=None, listing=LISTING, kind=RunKind.FILTER, accept_changed_shards=None
):
    return start_run(
        uri,
        RunIdentity(
            kind=kind,
            fingerprint=fingerprint or {"networks": {"dfn": {"weights_sha256": "w"}}},
            listing=listing,
        ),
        recipe={"run_uri": uri},
        accept=Acceptance(changed_shards=accept_changed_shards),
    )


def chunk(first_row, rows, *, last=False, shard="a.tar", fault=None):
    return Chunk(shard=shard, first_row=first_row, rows=rows, last=last, fault=fault)


def commit(run, chunks, counts=None, reasons=None):
    rows = sum(c.rows for c in chunks)
    table = pa.table(
        {
            "shard": [c.shard for c in chunks for _ in range(c.rows)],
            "row": [c.first_row + i for c in chunks for i in range(c.rows)],
            "status": ["failed" if reason else "scored" for reason in reasons or [None] * rows],
            "reason": pa.array(reasons or [None] * rows, pa.string()),
        }
    )
    header = PartHeader(
        fingerprint=run.fingerprint,
        bounds=(-1.0, float("inf")),
        counts=counts or {"scored": rows},
    )
    data = parquet_bytes(table.replace_schema_metadata(part_footer(chunks, header)))
    name = content_name(run.attempt.number, data)
    run.write(part_file(name), data)
    return name


@given(st.permutations([chunk(0, 4), chunk(4, 4), chunk(8, 2, last=True)]))
def test_a_shard_is_complete_when_its_chunks_tile_it_in_whatever_order_they_come(chunks):
    ledger = Ledger()
    for index, one in enumerate(chunks):
        assert not ledger.is_complete("a.tar")
        ledger.add(f"part-{index}", [one], {"scored": one.rows})
    assert ledger.is_complete("a.tar")
    assert ledger.samples == 10


def test_a_shard_with_a_hole_is_not_complete_even_when_its_end_is_known():
    ledger = Ledger()
    ledger.add("p", [chunk(0, 4), chunk(8, 2, last=True)], {"scored": 6})
    assert not ledger.is_complete("a.tar")
    with pytest.raises(IncompleteRunError, match=r"a\.tar"):
        ledger.require_complete(["a.tar"])
    ledger.add("q", [chunk(0, 4, last=True, shard="b.tar")], {"scored": 4})
    ledger.require_complete(["b.tar"])
    with pytest.raises(IncompleteRunError, match=r"^1 shards are not fully scored, a\.tar among"):
        ledger.require_complete(["b.tar", "a.tar"])
    assert dict(ledger.open_chunks("a.tar")) == {0: 4, 8: 2}


def test_rows_behind_the_end_of_a_shard_do_not_count_in_either_order():
    end = chunk(4, 2, last=True)
    for late in (chunk(6, 4), chunk(8, 4), chunk(6, 4, last=True), chunk(2, 2, last=True)):
        ledger = Ledger()
        ledger.add("p", [end], {"scored": 2})
        ledger.add("q", [late], {"scored": 4})
        assert dict(ledger.open_chunks("a.tar")) == {4: 2}, late
        assert ledger.disowned == {"q": [late]}
    for first in (chunk(6, 4), chunk(8, 4)):
        ledger = Ledger()
        ledger.add("p", [first], {"scored": 4})
        ledger.add("q", [end], {"scored": 2})
        assert dict(ledger.open_chunks("a.tar")) == {first.first_row: 4}, first
    ledger = Ledger()
    for number, before in enumerate((chunk(0, 4), chunk(2, 2), end)):
        ledger.add(f"p{number}", [before], {})
    assert set(ledger.open_chunks("a.tar")) == {0, 2, 4}


def test_the_bytes_read_of_all_chunks_are_summed():
    ledger = Ledger()
    assert (ledger.bytes_read, ledger.faults) == (0, {})
    for first_row, size in ((0, 7), (4, 11), (4, 99)):
        ledger.add("p", [replace(chunk(first_row, 4), bytes_read=size)], {})
    assert ledger.bytes_read == 18


def test_only_the_named_parts_are_read_and_one_of_another_run_is_named(tmp_path):
    run = start(str(tmp_path / "run"))
    one, two = commit(run, [chunk(0, 4)]), commit(run, [chunk(4, 4)])
    assert scan_ledger(run.store, run.fingerprint).samples == 8
    assert scan_ledger(run.store, run.fingerprint, [one]).samples == 4
    digits = "0123456789abcdef"
    said = f"{two}.parquet: has fingerprint {run.fingerprint[:12]}, but the run has {digits[:12]}, "
    with pytest.raises(FingerprintError, match=said):
        scan_ledger(run.store, digits, [two])


def test_a_chunk_that_two_parts_commit_belongs_to_the_part_of_the_later_attempt(tmp_path):
    first = start(str(tmp_path / "run"))
    early = commit(first, [chunk(0, 4), chunk(4, 4)])
    run = start(str(tmp_path / "run"))
    late = commit(run, [chunk(4, 4), chunk(8, 2, last=True)])
    ledger = scan_ledger(run.store, run.fingerprint)
    assert ledger.names == [late, early]
    assert list(ledger.disowned) == [early]
    assert [c.first_row for c in ledger.disowned[early]] == [4]
    assert ledger.samples == 10
    assert ledger.counts["scored"] == 10


def test_counts_of_a_chunk_that_counts_elsewhere_are_taken_off_by_status_and_reason(tmp_path):
    first = start(str(tmp_path / "run"))
    reasons = [None, "not_an_image", None, None, "bad_uid", None]
    counts = {"scored": 4, "failed/not_an_image": 1, "failed/bad_uid": 1}
    commit(first, [chunk(0, 4), chunk(4, 2)], counts, reasons)
    run = start(str(tmp_path / "run"))
    commit(run, [chunk(4, 2, last=True)], {"scored": 1, "failed/bad_uid": 1}, ["bad_uid", None])
    ledger = scan_ledger(run.store, run.fingerprint)
    assert +ledger.counts == {"scored": 4, "failed/not_an_image": 1, "failed/bad_uid": 1}


def test_no_two_contents_and_no_two_attempts_share_a_name():
    a, b = (parquet_bytes(pa.table({"n": [n]})) for n in (1, 2))
    assert content_name(1, a) == content_name(1, bytes(a))
    assert len({content_name(1, a), content_name(1, b), content_name(2, a)}) == 3


def test_a_footer_gives_back_the_chunks_and_header_of_its_part(tmp_path):
    run = start(str(tmp_path / "run"))
    chunks = [chunk(0, 3), chunk(3, 0, last=True, fault=ShardFault.TRUNCATED)]
    name = commit(run, chunks, {"scored": 2, "failed/not_an_image": 1})
    part = read_part(run.store, name)
    assert list(part.chunks) == chunks
    assert part.header.bounds == (-1.0, float("inf"))
    assert part.header.counts == {"scored": 2, "failed/not_an_image": 1}


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ({"networks": {"dfn": {"w": 1}}}, {"networks": {"dfn": {"w": 2}}}, "networks.dfn.w"),
        ({"decode": {"mode": "exact"}}, {"decode": {"mode": "fast"}}, "decode.mode"),
        ({"networks": {}}, {"networks": {"other": {"w": 1}}}, "networks.other"),
    ],
)
def test_a_resume_with_another_fingerprint_is_refused_and_names_what_differs(
    tmp_path, old, new, named
):
    uri = str(tmp_path / "run")
    start(uri, fingerprint=old)
    with pytest.raises(FingerprintError, match=named):
        start(uri, fingerprint=new)
    assert open_run(uri).description["fingerprint"] == old


def sized(size: int) -> pa.Table:
    return LISTING.set_column(2, "size_bytes", pa.array([size], pa.int64()))


def test_a_resume_over_another_pool_is_refused(tmp_path):
    uri = str(tmp_path / "run")
    start(uri)
    other = LISTING.set_column(0, "uri", pa.array(["b.tar"]))
    with pytest.raises(FingerprintError, match=r"pool\.digest"):
        start(uri, listing=other)


def test_a_resume_in_which_only_the_names_of_shards_differ_is_refused(tmp_path):
    uri = str(tmp_path / "run")
    start(uri)
    other = LISTING.set_column(1, "name", pa.array(["pool/a.tar"]))
    with pytest.raises(FingerprintError, match=r"so a\.tar is named pool/a\.tar instead of a\.tar"):
        start(uri, listing=other)
    assert open_run(uri).listing()["name"].to_pylist() == ["a.tar"]


def test_a_resume_over_shards_of_other_sizes_waits_for_a_word(tmp_path):
    uri = str(tmp_path / "run")
    start(uri)
    for word in (None, False):
        with pytest.raises(InputError, match=r"1 shards .* first is a\.tar had 7 bytes and has 8"):
            start(uri, listing=sized(8), accept_changed_shards=word)
        assert open_run(uri).listing()["size_bytes"].to_pylist() == [7]
    run = start(uri, listing=sized(8), accept_changed_shards=True)
    assert run.listing()["size_bytes"].to_pylist() == [8]
    assert scored_sizes(run.listing()) == {}
    start(uri, listing=sized(8))
    start(uri, listing=sized(0))  # a store that does not say


def test_what_is_committed_of_a_complete_shard_stays_when_it_is_listed_anew(tmp_path):
    uri = str(tmp_path / "run")
    commit(start(uri), [chunk(0, 4, last=True)])
    run = start(uri, listing=sized(8), accept_changed_shards=True)
    assert scan_ledger(run.store, run.fingerprint).samples == 4
    assert scored_sizes(run.listing()) == {"a.tar": 7}
    again = start(uri, listing=sized(9), accept_changed_shards=True)
    assert scored_sizes(again.listing()) == {"a.tar": 7}


def test_a_shard_that_was_put_back_is_no_replaced_one(tmp_path):
    uri = str(tmp_path / "run")
    commit(start(uri), [chunk(0, 4, last=True)])
    start(uri, listing=sized(8), accept_changed_shards=True)
    run = start(uri, listing=sized(7), accept_changed_shards=True)
    assert run.listing()["size_bytes"].to_pylist() == [7]
    assert scored_sizes(run.listing()) == {}
    again = start(uri, listing=sized(9), accept_changed_shards=True)
    assert scored_sizes(again.listing()) == {"a.tar": 7}


def test_a_changed_shard_that_is_committed_in_part_is_refused_whatever_the_word(tmp_path):
    uri = str(tmp_path / "run")
    commit(start(uri), [chunk(0, 4)])
    with pytest.raises(InputError, match=r"partly committed and have changed.*a\.tar had 7 bytes"):
        start(uri, listing=sized(8), accept_changed_shards=True)
    assert open_run(uri).listing()["size_bytes"].to_pylist() == [7]


def test_a_run_of_an_older_format_is_read_and_never_resumed(tmp_path):
    run = start(str(tmp_path / "run"))
    commit(run, [chunk(0, 4, last=True)])
    old = {**run.description, "format": 1, "versions": {"dfn_ray": "0.0.9"}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(old))
    old = open_run(run.store.uri)
    assert scan_ledger(old.store, old.fingerprint).samples == 4
    with pytest.raises(InputError, match=r"run format 1, made by dfn_ray 0\.0\.9.*not resume it"):
        start(run.store.uri)
    run.write_json("run.json", {**run.description, "format": 3})
    with pytest.raises(InputError, match="run format 3, this version reads 1 and 2"):
        open_run(run.store.uri)


@pytest.mark.parametrize("section", ["execution.", ""])
def test_a_resume_with_other_versions_waits_for_a_word_and_records_it(
    tmp_path, monkeypatch, section
):
    uri = str(tmp_path / "run")
    identity = RunIdentity(kind=RunKind.FILTER, fingerprint={}, listing=LISTING)

    def resumed(accepted: bool):
        accept = Acceptance(versions=accepted, section=section)
        return start_run(uri, identity, recipe={}, accept=accept)

    monkeypatch.setattr(resuming, "versions", lambda: {"torch": "2.6.0", "numpy": "2.1.0"})
    resumed(False)
    monkeypatch.setattr(resuming, "versions", lambda: {"torch": "2.9.1", "numpy": "2.3.0"})
    word = rf"\(torch: 2\.6\.0, now 2\.9\.1\).* set {section}accept_versions = true"
    with pytest.raises(InputError, match=word):
        resumed(False)
    run = resumed(True)
    assert run.attempt.record["accepted_versions"] == ["torch: 2.6.0, now 2.9.1"]
    assert run.notes() == [
        "resuming with other versions (torch: 2.6.0, now 2.9.1), as the recipe accepts"
    ]
    assert "accepted_versions" not in resumed(False).attempt.record


def test_a_resume_reads_the_record_of_its_run_once(tmp_path, monkeypatch):
    uri = str(tmp_path / "run")
    start(uri)
    reads = []
    plain = Store.read
    monkeypatch.setattr(Store, "read", lambda store, name: reads.append(name) or plain(store, name))
    start(uri)
    assert reads.count(RUN) == 1


def test_the_rows_in_front_of_a_shards_end_are_known_unless_there_is_a_gap():
    ledger = Ledger()
    assert ledger.contiguous_rows("a.tar") == 0
    ledger.add("p", [chunk(4, 4)], {"scored": 4})
    assert ledger.contiguous_rows("a.tar") is None
    ledger.add("q", [chunk(0, 4)], {"scored": 4})
    assert ledger.contiguous_rows("a.tar") == 8


def test_the_last_chunk_of_a_shard_is_known_while_others_are_absent():
    ledger = Ledger()
    assert ledger.last_chunk("a.tar") is None
    ledger.add("p", [chunk(4, 4)], {"scored": 4})
    assert ledger.last_chunk("a.tar") is None
    ledger.add("q", [chunk(8, 0, last=True)], {})
    assert ledger.last_chunk("a.tar") == 8
    ledger.add("r", [chunk(0, 4)], {"scored": 4})
    assert ledger.is_complete("a.tar")
    assert ledger.last_chunk("a.tar") is None


def test_notes_are_summed_over_the_chunks_that_count():
    ledger = Ledger()
    noted = chunk(0, 4).with_notes({"caption_cut": 2})
    ledger.add("p", [noted, chunk(4, 4).with_notes({"caption_cut": 1})], {"scored": 8})
    ledger.add("q", [noted], {"scored": 4})
    assert ledger.notes == {"caption_cut": 3}


def test_a_part_of_another_fingerprint_is_refused_when_the_run_is_scanned(tmp_path):
    run = start(str(tmp_path / "run"))
    commit(run, [chunk(0, 4, last=True)])
    with pytest.raises(FingerprintError, match="does not belong to this run"):
        scan_ledger(run.store, "0" * 64)


def test_a_foreign_parquet_file_among_the_scores_is_named(tmp_path):
    run = start(str(tmp_path / "run"))
    (tmp_path / "run" / "scores").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "run" / "scores" / "mine.parquet")
    with pytest.raises(DamagedRunError, match=r"mine\.parquet: commits no chunks"):
        scan_ledger(run.store, run.fingerprint)


def test_a_cut_off_part_is_named(tmp_path):
    run = start(str(tmp_path / "run"))
    name = commit(run, [chunk(0, 4, last=True)])
    path = tmp_path / "run" / "scores" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedRunError, match="is damaged"):
        scan_ledger(run.store, run.fingerprint)


def test_the_driver_that_resumes_a_run_takes_it_over_from_the_other(tmp_path):
    first = start(str(tmp_path / "run"))
    first.check_attempt()
    second = start(str(tmp_path / "run"))
    second.check_attempt()
    with pytest.raises(RunTakenOverError, match="taken over"):
        first.check_attempt()


def test_a_folder_of_something_else_is_not_made_a_run(tmp_path):
    (tmp_path / "run" / "subset").mkdir(parents=True)
    (tmp_path / "run" / "subset" / "x.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no run\.json"):
        start(str(tmp_path / "run"))


def test_a_start_that_died_before_the_run_was_described_is_started_again(tmp_path):
    start(str(tmp_path / "run"))
    (tmp_path / "run" / "run.json").unlink()
    assert start(str(tmp_path / "run")).fingerprint == open_run(str(tmp_path / "run")).fingerprint


def test_opening_what_is_not_a_run_says_so(tmp_path):
    with pytest.raises(InputError, match="contains no run"):
        open_run(str(tmp_path))


@pytest.mark.parametrize("fault", [Fault.STATUS_403, Fault.STATUS_500])
def test_a_run_whose_store_fails_is_not_called_absent(monkeypatch, fault):
    policy = Policy(attempts=2, doubtful_attempts=2, longest_wait_s=0)
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", policy)
    with serve_http({"run/run.json": b"{}"}) as server:
        with pytest.raises(InputError, match="contains no run"):
            open_run(server.uri("elsewhere"))
        server.plan(fault)
        with pytest.raises(StorageError, match=rf"run\.json: .*{fault}"):
            open_run(server.uri("run"))


def test_the_digest_of_a_fingerprint_ignores_the_order_of_its_keys():
    assert fingerprint_digest({"a": 1, "b": 2}) == fingerprint_digest({"b": 2, "a": 1})
    assert fingerprint_digest({"a": 1}) != fingerprint_digest({"a": 2})


def test_differences_name_each_leaf():
    told = list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}))
    assert told == ["a.c: run has 2, recipe has 3", "d: run has null, recipe has 4"]


def test_a_run_opened_for_reading_refuses_writes(tmp_path):
    start(str(tmp_path))
    run = open_run(str(tmp_path))
    with pytest.raises(InputError, match="opened for reading; nothing may be written into it"):
        run.replace_json("selection.json", {}, before=None)
    assert not (tmp_path / "selection.json").exists()
