"""Target: uid lists. Records match numpy's; every other file is an InputError."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa

from dfn_ray.errors import InputError
from dfn_ray.uids.lookup import open_uid_list
from dfn_ray.uids.records import UID_DTYPE
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import mutate

_MAGIC = b"\x93NUMPY"


def make(rng: Random) -> Case:
    """A list of any form, valid or wrong, or a damaged one."""
    uids = sorted(_uid(rng) for _ in range(rng.choice((0, 1, 2, 50, 5000))))
    form = rng.choice(list(_VALID) if rng.random() < 0.6 else list(_WRONG))
    data = (_VALID.get(form) or _WRONG[form])(rng, uids)
    pick = rng.random()
    valid = pick < 0.6 and form in _VALID
    note = f"{form} of {len(uids)}"
    if pick >= 0.6:
        region = (0, min(128, len(data))) if rng.random() < 0.6 else None
        damage = mutate(rng, data, region)
        data, note = damage.data, f"{note}: {damage.note}"
    name = f"{rng.getrandbits(64):x}.npy"

    def check(folder: Path) -> Counter[str]:
        path = folder / name
        path.write_bytes(data)
        try:
            found = open_uid_list(str(path))
        except InputError as error:
            require(not (valid and uids), "a valid uid list is refused", note, str(error))
            require(str(path) in str(error), "a refusal that does not name the file", str(error))
            return Counter(["refused"])
        require(valid or pick >= 0.6, "a wrong uid list is taken", note)
        due = uids if valid else _independent(data)
        require(due is not None and due == sorted(due), "a broken uid list is taken", note)
        records = [(int(record["f0"]), int(record["f1"])) for record in found.records()]
        require(records == due, "a uid list has other records", note, records[:3])
        require(found.distinct == len(set(records)), "distinct uids are miscounted", note)
        asked = [*rng_of(due), (1, 2)]
        times = found.counts(pa.array([f"{high:016x}{low:016x}" for high, low in asked]))
        require(
            times.tolist() == [due.count(uid) for uid in asked],
            "times of uids are miscounted",
            note,
        )
        return Counter(["ok"])

    return Case(valid=valid, note=note, files={"uids.npy": data}, check=check)


def rng_of(uids: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A few of the uids, the same each time."""
    return uids[:: max(1, len(uids) // 7)]


def _uid(rng: Random) -> tuple[int, int]:
    word = (0, 2**64 - 1, rng.getrandbits(64), rng.randrange(4))
    return rng.choice(word), rng.choice(word)


def _independent(data: bytes) -> list[tuple[int, int]] | None:
    """The records of a file by plain numpy, or None if there are none.

    Any field names and byte order.
    """
    try:
        if data.startswith(_MAGIC):
            array = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            array = np.frombuffer(data, UID_DTYPE)
        if array.ndim != 1 or array.dtype.names is None or len(array.dtype.names) != 2:
            return None
        return [(int(record[0]), int(record[1])) for record in array]
    except Exception:  # noqa: BLE001  recorded as None; numpy raises anything on damaged headers
        return None


def _records(uids: list[tuple[int, int]], kind: str = "u8,u8") -> np.ndarray:
    return np.array(uids, np.dtype(kind))


def _npy(
    array: np.ndarray, version: tuple[int, int] | None = None, *, pickle: bool = False
) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=pickle)
    return file.getvalue()


def _named(uids: list[tuple[int, int]]) -> np.ndarray:
    return np.array(uids, np.dtype([("high", "u8"), ("low", "u8")]))


def _npz(uids: list[tuple[int, int]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, _records(uids))
    return file.getvalue()


_VALID = {
    "npy": lambda _, uids: _npy(_records(uids)),
    "npy 2.0": lambda _, uids: _npy(_records(uids), (2, 0)),
    "npy 3.0": lambda _, uids: _npy(_records(uids), (3, 0)),
    "big-endian": lambda _, uids: _npy(_records(uids, ">u8,>u8")),
    "other names": lambda _, uids: _npy(_named(uids)),
    "fortran order": lambda _, uids: _npy(np.asfortranarray(_records(uids))),
    "bare records": lambda _, uids: _records(uids).tobytes(),
}
"""Forms that are accepted. A list without uids may be rejected."""

_WRONG = {
    "mixed ends": lambda _, uids: _npy(_records(uids, ">u8,<u8")),
    "objects": lambda _, uids: _npy(np.array([*uids, None], object), pickle=True),
    "column": lambda _, uids: _npy(_records([*uids, (2**64 - 1, 2**64 - 1)]).reshape(-1, 1)),
    "scalar": lambda _, __: _npy(_records([(1, 2)])[0]),
    "matrix": lambda _, uids: _npy(np.array([*uids, (1, 2)], np.uint64)),
    "signed": lambda _, __: _npy(_records([(1, 2)], "i8,i8")),
    "narrow": lambda _, __: _npy(_records([(1, 2)], "u4,u4")),
    "three fields": lambda _, __: _npy(np.array([(1, 2, 3)], "u8,u8,u8")),
    "strings": lambda _, __: _npy(np.array(["0" * 32])),
    "unsorted": lambda _, __: _npy(_records([(2, 0), (1, 0)])),
    "npz": lambda _, uids: _npz(uids),
    "text": lambda _, uids: (
        "".join(f"{high:016x}{low:016x}\n" for high, low in [*uids, (1, 2)]).encode() + b"#" * 7
    ),
    "nothing": lambda _, __: b"",
    "pickle": lambda _, __: b"\x80\x04K\x01.",
    "parquet": lambda _, __: b"PAR1" + bytes(13) + b"PAR1",
}
"""Forms that are rejected, with an InputError that names the file."""

TARGET = Target("uid-list", 1, make)
