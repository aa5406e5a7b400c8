"""Apparent ends of a tar: its mark, a hole of zeros, another tar, or anything else."""

from __future__ import annotations

import gzip
import io

import pytest

from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.pool.tars import tar_end
from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar import walk
from dfn_ray.schema import Note, ShardFault
from dfn_ray.testing.sample_pools import TarBuilder

FIVE = TarBuilder()
for _number in range(5):
    FIVE.sample(f"{_number}", image=b"image%d" % _number * 200, caption=f"caption {_number}")
DATA = FIVE.getvalue()
THIRD = DATA.index(b"2.jpg")
"""Position of the third image's header."""
LATER = TarBuilder().sample("later", image=b"image", caption="c").getvalue()


def holed(size: int, at: int = THIRD) -> bytes:
    return DATA[:at] + bytes(size) + DATA[at + size :]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [512, 1024, 1536, 4096, 5632])
def test_a_hole_of_zeros_in_a_tar_loses_no_sample_without_a_word(read, size, packed):
    data = holed(size)
    result = read(gzip.compress(data, mtime=0) if packed else data)
    lost = {str(number) for number in range(5)} - set(result.reasons)
    if (
        result.last.fault is None
    ):  # it ends where a header begins, as a tar does that is followed by another
        assert result.last.notes == {Note.ZEROS_BEFORE_MEMBER: 1}
        assert {"0", "1", "4"} <= set(result.reasons)
    else:
        assert result.last.fault is ShardFault.UNREADABLE
        assert f"at byte {THIRD}" in result.last.detail
        assert lost == {"2", "3", "4"}
    assert result.reasons["0"] is result.reasons["1"] is None


@pytest.mark.parametrize("at", range(0, len(DATA) - 1024, 512))
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_a_hole_anywhere_is_a_fault_a_reason_a_note_or_within_a_member(read, at, size):
    result = read(holed(size, at), format="webdataset")
    whole = read(DATA)
    reasons = result.reasons
    if set(reasons) == set(whole.reasons) and not any(reasons.values()):
        return
    failed = any(reasons.values())
    assert result.last.fault is not None or result.last.notes or failed


@pytest.mark.parametrize("junk", [b"junk", b"junk" * 128, b"j" * 5000, b"\r\n"])
def test_bytes_behind_the_end_are_noted_and_a_tar_there_is_read_or_a_fault(read, junk):
    assert read(DATA).last.notes == {}
    for tail in (b"", LATER):
        result = read(DATA + junk + tail)
        assert len(result.rows) == 5
        if tail and len(junk) % 512 == 0:
            assert result.last.fault is ShardFault.UNREADABLE
            assert f"header after it is at byte {len(DATA) + len(junk)}" in result.last.detail
        else:
            assert result.last.fault is None
            assert result.last.notes == {Note.BYTES_AFTER_END: 1}


@pytest.mark.parametrize("zeros", [0, 512, 10_240, 100_000 // 512 * 512])
def test_tars_joined_in_one_file_are_read_and_noted(read, zeros):
    result = read(DATA + bytes(zeros) + LATER)
    assert len(result.rows) == 6
    assert (result.last.fault, result.last.notes) == (None, {Note.ZEROS_BEFORE_MEMBER: 1})
    assert len(result.chunks) == 1


def test_what_is_odd_is_noted_once_where_a_tar_is_walked_twice(read):
    tar = TarBuilder()
    for number in range(6):
        tar.member(f"{number}.jpg", b"image")
    data = tar.getvalue()
    captions = TarBuilder()
    for number in range(6):
        captions.member(f"{number}.txt", b"c")
    result = read(data + captions.getvalue() + b"junk", chunk_rows=2)
    assert set(result.reasons.values()) == {None}
    assert [chunk.notes for chunk in result.chunks[:-1]] == [{}, {}]
    assert result.last.notes == {Note.ZEROS_BEFORE_MEMBER: 1, Note.BYTES_AFTER_END: 1}


def test_zeros_beyond_the_padding_of_a_tar_are_noted(read):
    padded = DATA + bytes(-len(DATA) % 10_240)
    assert read(padded).last.notes == {}
    assert read(padded + bytes(10_240)).last.notes == {Note.BYTES_AFTER_END: 1}


def test_a_lone_zero_block_ends_a_tar_where_nothing_follows(read):
    lone = FIVE.getvalue(end=False) + bytes(512)
    assert (read(lone).last.fault, len(read(lone).rows)) == (None, 5)
    result = read(lone + b"x" * 512)
    assert result.last.fault is ShardFault.UNREADABLE
    assert f"broken header at byte {len(FIVE)}" in result.last.detail


class CountingTape(Tape):
    """A tape that counts the bytes read from it."""

    bytes_read = 0

    def read(self, count: int) -> bytes:
        data = super().read(count)
        self.bytes_read += len(data)
        return data


@pytest.mark.parametrize("filler", [b"\0", b"x"])
def test_a_long_tail_is_not_read_to_its_end(monkeypatch, filler):
    monkeypatch.setattr(tar_end, "_MAX_TAIL_BYTES", 2**21)
    tape = CountingTape(io.BytesIO(DATA + filler * 2**23))
    if filler == b"\0":
        with pytest.raises(ShardDamageError, match="only zeros from byte"):
            list(walk(tape))
    else:
        assert len(list(walk(tape))) == 10
    assert tape.bytes_read < 2**22


def test_headers_do_not_describe_a_member_behind_zeros(read):
    tar = TarBuilder(1).member("n" * 200 + ".jpg", b"first").getvalue(end=False)
    at = tar.index(b"n" * 100, 1024)  # the header that the long name belongs to
    data = FIVE.getvalue(end=False) + tar[:at] + bytes(1024) + LATER
    assert list(read(data).reasons) == ["0", "1", "2", "3", "4", "later"]
