"""Conditional writes on disk, in memory, and on S3 servers with and without support."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
import threading
import uuid

import pytest

from dfn_ray.errors import RunTakenOverError, StorageError
from dfn_ray.pool import listing_table
from dfn_ray.run import SELECTION, RunIdentity, RunKind, create_attempt, start_run
from dfn_ray.storage import Store, filesystem
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.s3_proxy import Fault, Faults
from tests.run.below_ray import dies_at, moments_of

ROUNDS = 100
RENAME = "dfn_ray.storage.exclusive._RENAMEAT2"


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", Policy(longest_wait_s=0))


DISKS = {"hard links": (), "no hard links": ("os.link",), "nothing": ("os.link", RENAME)}
"""Operations for exclusive names that a disk lacks."""


def refused(*arguments):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=DISKS)
def disk(request, tmp_path, monkeypatch):
    """A store on disks with hard links, without, and with copying only; no fsync."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    for absent in DISKS[request.param]:
        monkeypatch.setattr(absent, refused)
    return Store(str(tmp_path / "s"))


@pytest.fixture
def moto(conditional_s3, tmp_path):
    """A store on a server that honours conditions."""
    return Store(f"s3://runs/{tmp_path.name}")


@pytest.fixture(params=["disk", "memory", "moto"])
def store(request, tmp_path):
    if request.param == "moto":
        return request.getfixturevalue("moto")
    if request.param == "disk":
        return Store(str(tmp_path / "s"))
    return Store(f"memory://{uuid.uuid4().hex}")


def test_a_file_is_created_once_and_replaced_only_where_it_is_what_it_was_thought_to_be(store):
    assert store.create("f/x", b"first")
    assert not store.create("f/x", b"second")
    assert store.create("f/x", b"first"), "the content is what was asked for"
    assert store.read("f/x") == b"first"
    assert not store.replace("f/x", b"third", before=b"second")
    assert not store.replace("f/x", b"third", before=None)
    assert store.replace("f/x", b"third", before=b"first")
    assert not store.replace("f/x", b"fourth", before=b"first")
    assert store.replace("f/x", b"third", before=b"first"), "the content is what was asked for"
    assert store.read("f/x") == b"third"
    assert not store.replace("f/absent", b"x", before=b"first")
    assert not store.exists("f/absent")
    assert store.honours_conditions("f/x")
    assert store.read("f/x") == b"third"
    assert [file.name for file in store.list("f")] == ["x"]


def side_by_side(act) -> list[list[bool]]:
    """Results of two threads that call `act(who, round)` at the same time."""
    barrier, answers = threading.Barrier(2), [[], []]

    def work(who: int) -> None:
        for number in range(ROUNDS):
            barrier.wait()
            answers[who].append(act(who, number))

    threads = [threading.Thread(target=work, args=(who,)) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_two_threads_that_create_a_file_one_does(disk):
    contents = [b"of one " * 1000, b"of the other " * 1000]
    answers = side_by_side(lambda who, number: disk.create(f"f/{number}", contents[who]))
    for number, (one, other) in enumerate(zip(*answers, strict=True)):
        assert one is not other
        assert disk.read(f"f/{number}") == contents[0 if one else 1]
    assert len(list(os.scandir(disk.uri_of("f")))) == ROUNDS


def test_of_two_processes_that_create_a_file_one_does(disk):
    children = []
    for who in ("a", "b"):
        child = os.fork()
        if not child:
            won = [n for n in range(ROUNDS) if disk.create(f"f/{n}", who.encode() * 5000)]
            disk.write(f"won-{who}", json.dumps(won).encode())
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    won = {who: set(json.loads(disk.read(f"won-{who}"))) for who in ("a", "b")}
    assert won["a"] | won["b"] == set(range(ROUNDS))
    assert not won["a"] & won["b"]
    for who, numbers in won.items():
        assert all(disk.read(f"f/{n}") == who.encode() * 5000 for n in numbers)


def test_of_two_threads_that_replace_a_version_one_does(disk):
    for number in range(ROUNDS):
        disk.write(f"f/{number}", b"before")
    contents = [b"of one", b"of the other"]
    answers = side_by_side(
        lambda who, number: disk.replace(f"f/{number}", contents[who], before=b"before")
    )
    for number, (one, other) in enumerate(zip(*answers, strict=True)):
        assert one is not other
        assert disk.read(f"f/{number}") == contents[0 if one else 1]


STEPS = {builtins: ("open",), os: ("makedirs", "fsync", "link", "replace", "remove", "close")}
"""Disk operations that a store calls."""


@pytest.mark.parametrize("module", STEPS)
@pytest.mark.parametrize(
    "absent",
    [
        pytest.param((), id="hard links"),
        pytest.param(("os.link",), id="no hard links", marks=pytest.mark.slow),
    ],
)
def test_after_a_crash_at_any_step_a_file_is_whole_or_absent(tmp_path, monkeypatch, absent, module):
    for name in absent:
        monkeypatch.setattr(name, refused)

    def write(store: Store) -> None:
        store.create("f/created", b"created")
        store.replace("f/created", b"replaced", before=b"created")
        store.write("f/written", b"written")
        store.write_stream("f/streamed", [b"stre", b"amed"])
        store.delete("f/written")

    contents = {
        "created": (b"created", b"replaced"),
        "written": (b"written",),
        "streamed": (b"streamed",),
    }
    calm, store = Store(str(tmp_path / "calm")), Store(str(tmp_path / "s"))
    moments = moments_of(lambda: write(calm), STEPS[module], of=module)
    assert len(moments) > 6
    for moment in moments:
        with moment.noted():
            dies_at(moment, lambda: write(store), STEPS[module], of=module)
            for file in store.list("f"):
                assert store.read(f"f/{file.name}") in contents[file.name]
            store.delete("f/created")
            write(store)
            assert [store.read(f"f/{file.name}") for file in store.list("f")] == [
                b"replaced",
                b"streamed",
            ]
        shutil.rmtree(tmp_path / "s")


def test_a_copy_that_fails_half_way_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    """A copy to a disk without links and exclusive renames that becomes full."""
    store = Store(str(tmp_path))
    for name in DISKS["nothing"]:
        monkeypatch.setattr(name, refused)
    synced = []

    def fsync(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:  # the first is that of the file written aside
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(StorageError, match="No space left"):
        store.create("x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_a_hard_link_for_another_reason_fails(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.link", link)
    with pytest.raises(StorageError, match="No space left"):
        Store(str(tmp_path)).create("x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_replace_that_another_write_overtakes_between_its_look_and_its_write_is_refused(
    moto, monkeypatch
):
    moto.write("x", b"before")
    client = filesystem(moto.uri)
    plain = client.cat_file

    def cat_file(path, **options):
        data = plain(path, **options)
        if data == b"before":
            moto.write("x", b"of another")
        return data

    monkeypatch.setattr(client, "cat_file", cat_file)
    assert not moto.replace("x", b"mine", before=b"before")
    assert moto.read("x") == b"of another"


def test_a_conditional_write_whose_answer_was_lost_counts_as_done(moto, conditional_s3, no_waiting):
    lost = Faults(share=0.5, kinds=(Fault.LOST_ANSWER,), operations=("PUT",))
    for number in range(8):
        conditional_s3.faults = lost
        assert moto.create(f"c/{number}", b"mine")
        assert moto.replace(f"c/{number}", b"new", before=b"mine")
        assert not moto.create(f"c/{number}", b"of another")
        assert not moto.replace(f"c/{number}", b"x", before=b"mine")
        conditional_s3.faults = Faults()
        assert moto.read(f"c/{number}") == b"new"
    assert conditional_s3.counts["PUT", Fault.LOST_ANSWER] > 0


def test_a_conflict_with_another_conditional_write_is_tried_again(moto, conditional_s3, no_waiting):
    conditional_s3.faults = Faults(share=0.5, kinds=(Fault.CONFLICT,), operations=("PUT",))
    for number in range(8):
        assert moto.create(f"c/{number}", b"mine")
        assert moto.replace(f"c/{number}", b"new", before=b"mine")
        assert not moto.create(f"c/{number}", b"of another")
    assert conditional_s3.counts["PUT", Fault.CONFLICT] > 0


def start(uri: str):
    return start_run(
        uri, RunIdentity(kind=RunKind.FILTER, fingerprint={}, listing=listing_table([])), recipe={}
    )


def take_at_a_time(store, monkeypatch):
    """Two drivers' attempts that both looked for the last one before either created its own."""
    plain, second = Store.create, []

    def create(self, name, data):
        if not second:
            second.append(None)
            second[0] = create_attempt(store, {"time": "now"})
        return plain(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "create", create)
        first = create_attempt(store, {"time": "now"})
    return first, second[0]


def test_two_drivers_that_take_a_run_at_a_time_get_two_attempts(store, monkeypatch):
    first, second = take_at_a_time(store, monkeypatch)
    assert (second.number, first.number) == (1, 2)
    assert first.is_exclusive
    assert second.is_exclusive
    first.check(store)
    with pytest.raises(RunTakenOverError):
        second.check(store)


def test_a_selection_is_not_replaced_by_who_knows_another_version_of_it(moto):
    run = start(moto.uri)
    assert run.notes() == []
    versions = [{"state": "final", "k": k} for k in range(3)]
    before = run.replace_json(SELECTION, versions[0], None)
    run.replace_json(SELECTION, versions[1], before)
    with pytest.raises(RunTakenOverError, match=r"selection\.json: another driver has changed it"):
        run.replace_json(SELECTION, versions[2], before)
    assert json.loads(run.store.read(SELECTION))["k"] == versions[1]["k"]


@pytest.fixture
def rclone(s3, fresh_s3, proxy, tmp_path):
    """A store on a server that ignores conditions: it answers 200 and overwrites."""
    return Store(f"s3://runs/{tmp_path.name}")


def test_a_store_that_ignores_conditions_is_detected_and_reported(rclone):
    rclone.write("x", b"content")
    assert not rclone.honours_conditions("x")
    assert rclone.read("x") == b"content"
    run = start(rclone.uri_of("run"))
    assert any("ignores conditional writes" in note for note in run.notes())


def test_of_two_drivers_that_take_a_run_at_a_time_without_conditions_the_overwritten_one_stops(
    rclone, monkeypatch
):
    first, second = take_at_a_time(rclone, monkeypatch)
    assert (second.number, first.number) == (1, 1)
    first.check(rclone)
    with pytest.raises(RunTakenOverError):
        second.check(rclone)


@pytest.mark.parametrize("unnoticed", ["mode", "IfMatch"])
def test_a_store_that_honours_one_of_the_two_conditions_is_not_taken_for_one_that_honours_both(
    moto, monkeypatch, unnoticed
):
    moto.write("x", b"content")
    client = filesystem(moto.uri)
    plain = client.pipe_file

    def pipe_file(path, data, **options):
        options.pop(unnoticed, None)
        return plain(path, data, **options)

    assert moto.honours_conditions("x")
    monkeypatch.setattr(client, "pipe_file", pipe_file)
    assert not moto.honours_conditions("x")


def test_a_local_folder_whose_name_begins_like_s3_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("s3-runs/run")
    assert store.create("x", b"first")
    assert store.honours_conditions("x")
    assert store.replace("x", b"second", before=b"first")
    assert (tmp_path / "s3-runs" / "run" / "x").read_bytes() == b"second"
