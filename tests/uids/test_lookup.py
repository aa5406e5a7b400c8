"""Uid lists: all readable forms are read alike, every other one is rejected by its kind."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import subprocess
import sys
import time

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfn_ray.errors import InputError
from dfn_ray.uids import lookup as module
from dfn_ray.uids.lookup import open_uid_list
from dfn_ray.uids.records import UID_DTYPE, uid_strings

UIDS = np.array([(0, 1), (0, 2), (0, 2), (7, 0), (2**64 - 1, 5)], UID_DTYPE)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    module._mapped.cache_clear()


def saved(path, array, **how):
    np.save(path, array, **how)
    return str(path)


def as_type(fields):
    return UIDS.astype([(name, "u8") for name in ("f0", "f1")]).astype(np.dtype(fields))


TAKEN = {
    "datacomp": UIDS,
    "big_endian": UIDS.astype(UID_DTYPE.newbyteorder(">")),
    "other_names": UIDS.view([("high", "<u8"), ("low", "<u8")]),
    "big_endian_other_names": as_type([("a", ">u8"), ("b", ">u8")]),
    "names_beyond_latin": UIDS.view([("高", "<u8"), ("低", "<u8")]),
}


@pytest.mark.parametrize("form", TAKEN)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_records_of_two_u8_are_taken_whatever_their_names_and_byte_order(tmp_path, form):
    uri = saved(tmp_path / "list.npy", TAKEN[form])
    found = open_uid_list(uri)
    assert found.distinct == 4
    assert found.records().dtype == UID_DTYPE
    assert np.array_equal(found.records(), UIDS)
    assert found.counts(uid_strings(UIDS)).tolist() == [1, 2, 2, 1, 1]
    assert found.sha256 == open_uid_list(saved(tmp_path / "plain.npy", UIDS)).sha256


def test_bare_records_and_fortran_order_and_no_uids_at_all_are_taken(tmp_path):
    (tmp_path / "bare").write_bytes(UIDS.tobytes())
    assert np.array_equal(open_uid_list(str(tmp_path / "bare")).records(), UIDS)
    content = bytearray()
    with open(saved(tmp_path / "list.npy", UIDS), "rb") as file:
        content += file.read().replace(b"'fortran_order': False", b"'fortran_order': True ")
    (tmp_path / "fortran.npy").write_bytes(content)
    assert np.array_equal(open_uid_list(str(tmp_path / "fortran.npy")).records(), UIDS)
    assert open_uid_list(saved(tmp_path / "none.npy", UIDS[:0])).distinct == 0


def npz(path):
    np.savez(path.with_suffix(".npz"), UIDS)
    return path.with_suffix(".npz")


def text(path):
    path.write_text("\n".join(uid_strings(UIDS).to_pylist()))


def parquet(path):
    pq.write_table(pa.table({"uid": uid_strings(UIDS)}), path)


def of_npy(change):
    def write(path):
        np.save(path, UIDS)
        path.write_bytes(change(path.read_bytes()))

    return write


def header(text):
    content = text.encode()
    return lambda path: path.write_bytes(
        b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content + UIDS.tobytes()
    )


def array(values, **how):
    return lambda path: np.save(path, values, **how)


REFUSED = {
    "objects": (array(np.array([(0, 1)], dtype=object), allow_pickle=True), "pickled Python"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(UIDS)), "a Python pickle"),
    "npz": (npz, r"zip archive, as \.npz"),
    "text": (text, "is text, beginning with '0000"),
    "csv": (lambda path: path.write_text("uid\n" + "0" * 31 + "1\n"), "is text"),
    "parquet": (parquet, "a Parquet file"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(UIDS.tobytes())), "gzip-compressed"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut": (of_npy(lambda data: data[:-5]), "is truncated: 5 records"),
    "cut_in_header": (of_npy(lambda data: data[:40]), "ends in its header"),
    "cut_in_magic": (of_npy(lambda data: data[:7]), "unknown version"),
    "two_arrays": (of_npy(lambda data: data + data), "has bytes after its end"),
    "damaged_magic": (of_npy(lambda data: b"\x92" + data[1:]), "first bytes are damaged"),
    "bare_odd": (
        lambda path: path.write_bytes(UIDS.tobytes()[:-3]),
        "not a multiple of the 16 bytes",
    ),
    "scalar": (array(UIDS[0]), r"of shape \(\)"),
    "column": (array(UIDS.reshape(-1, 1)), r"of shape \(5, 1\)"),
    "pairs": (array(np.zeros((3, 2), "u8")), "plain '<u8' values"),
    "signed": (array(np.zeros(3, "i8,i8")), r"<i8"),
    "mixed": (array(np.zeros(3, "<u8,>u8")), r"pairs of u8 in one byte order are needed"),
    "narrow": (array(np.zeros(3, "u4,u4")), r"<u4"),
    "three": (array(np.zeros(3, "u8,u8,u8")), r"pairs of u8 in one byte order are needed"),
    "strings": (array(np.array(["0" * 32])), "plain '<U32' values"),
    "unsorted": (array(UIDS[::-1]), r"not sorted \(record 1"),
    "deep_header": (header("(" * 5000), "damaged header"),
    "code_header": (header("__import__('os').system('true')"), "damaged header"),
    "huge_header": (
        lambda path: path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"),
        "header of 2,147,483,647 bytes",
    ),
    "negative": (
        header("{'descr': [('a', '<u8'), ('b', '<u8')], 'fortran_order': False, 'shape': (-1,)}"),
        r"of shape \(-1,\)",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_any_other_file_is_refused_with_what_it_is(tmp_path, form):
    write, message = REFUSED[form]
    path = write(tmp_path / "list.npy") if form == "npz" else tmp_path / "list.npy"
    if form != "npz":
        write(path)
    with pytest.raises(InputError, match=rf"{path.name}: .*{message}"):
        open_uid_list(str(path))


@pytest.mark.parametrize("records", [1, 2, 300])
@pytest.mark.parametrize("mark", [b"\x1f\x8b", b"\x1f\x8b\x08", b"\x80\x02", b"\x80\x04"])
def test_bare_lists_that_begin_like_gzip_or_a_pickle_by_chance_are_taken(tmp_path, mark, records):
    """Of 65,536 lists 5 begin like that. The seed determines which are tried."""
    random_bytes = random.Random(1).randbytes
    for _ in range(200):
        uids = np.frombuffer(random_bytes(16 * records), UID_DTYPE).copy()
        uids["f0"][0] = int.from_bytes(mark + random_bytes(6 - len(mark)), "little")
        uids["f0"][1:] |= 2**63
        uids[1:].sort()
        (tmp_path / "list").write_bytes(uids.tobytes())
        module._mapped.cache_clear()
        assert np.array_equal(open_uid_list(str(tmp_path / "list")).records(), uids)


@pytest.mark.parametrize("values", [[], [1, 2], b"x" * 32, ["x"] * 10_000, np.zeros(1000), UIDS])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_and_gzip_of_any_kind_are_refused(tmp_path, values, protocol):
    content = pickle.dumps(values, protocol)
    for data in (content, gzip.compress(content), gzip.compress(content, 0)):
        (tmp_path / "list").write_bytes(data)
        with pytest.raises(InputError, match=r"is a Python pickle|is gzip-compressed"):
            open_uid_list(str(tmp_path / "list"))


def test_a_list_that_is_not_there_is_wrong_input_that_names_the_node(tmp_path):
    with pytest.raises(InputError, match=r"uid list .*absent\.npy: does not exist on .*every node"):
        open_uid_list(str(tmp_path / "absent.npy"))
    with pytest.raises(InputError, match="absent"):
        open_uid_list("memory://uids/absent.npy")


def test_a_remote_list_is_copied_once_and_again_when_it_changes(tmp_path, monkeypatch):
    opened = []
    real = module.open_uri
    monkeypatch.setattr(module, "open_uri", lambda uri: opened.append(uri) or real(uri))
    store = fsspec.filesystem("memory")
    for count in (5, 4):
        np.save(tmp_path / "list.npy", UIDS[:count])
        store.pipe_file("/uids/list.npy", (tmp_path / "list.npy").read_bytes())
        for _ in range(2):
            module._mapped.cache_clear()
            found = open_uid_list("memory://uids/list.npy")
            assert np.array_equal(found.records(), UIDS[:count])
    assert len(opened) == 2


def test_processes_of_a_node_share_one_copy(tmp_path):
    path = saved(tmp_path / "list.npy", TAKEN["big_endian"])
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[2]; "
        "from dfn_ray.uids.lookup import open_uid_list; print(open_uid_list(sys.argv[1]).sha256)"
    )
    command = [sys.executable, "-c", code, path, str(tmp_path / "tmp")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in running}) == 1
    names = [file.name for file in (tmp_path / "tmp").iterdir() if not file.suffix]
    assert len(names) == 1


def _npy(order):
    import io

    buffer = io.BytesIO()
    np.save(buffer, UIDS.astype(UID_DTYPE.newbyteorder(order)))
    return buffer.getvalue()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.sampled_from([_npy("<"), _npy(">"), UIDS.tobytes()]),
    changes=st.lists(st.tuples(st.integers(0, 220), st.binary(max_size=6)), max_size=4),
    end=st.integers(0, 230),
)
def test_mutated_lists_are_read_or_refused_and_nothing_else(tmp_path, data, changes, end):
    content = bytearray(data)
    for at, some in changes:
        content[at : at + len(some)] = some
    path = tmp_path / "mutated.npy"
    path.write_bytes(content[: end if end < 200 else None])
    module._mapped.cache_clear()
    try:
        found = open_uid_list(str(path))
    except InputError:
        return
    assert found.records().dtype == UID_DTYPE
    assert len(found.counts(uid_strings(UIDS))) == 5


def test_copies_that_nobody_opened_for_a_week_are_removed_when_another_is_made(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, used = tmp_path / "dfn_ray-uids-old", tmp_path / "dfn_ray-uids-used"
    foreign = tmp_path / "another-file"
    for path, age_s in ((old, 8 * 86_400), (used, 6 * 86_400), (foreign, 9 * 86_400)):
        path.write_bytes(b"uids")
        os.utime(path, (time.time() - age_s,) * 2)
    module._cached_on_disk("new", lambda: iter([b"new"]))
    assert (old.exists(), used.exists(), foreign.exists()) == (False, True, True)
