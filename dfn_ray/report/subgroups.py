"""Subgroups of samples, from a Parquet file with a column `uid` and another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.errors import InputError
from dfn_ray.storage import open_uri
from dfn_ray.uids.records import UID_DTYPE, uid_records
from dfn_ray.untrusted.parquet_files import open_parquet


@dataclass(frozen=True)
class Subgroups:
    """The subgroup of each sample."""

    names: tuple[str, ...]
    number_N: np.ndarray
    """Index of each sample's subgroup in `names`."""


def find_subgroups(
    uri: str | None, table: Mapping[str, np.ndarray], place: np.ndarray
) -> Subgroups | None:
    """The subgroup of each sample at `place`; None without a file. `table` has all these places."""
    if uri is None:
        return None
    groups = read_subgroups(uri)
    others = [name for name in groups.column_names if name != "uid"]
    uids = table["uid"][np.searchsorted(table["place"], place)]
    try:
        listed = uid_records(groups["uid"].cast(pa.string()))
    except InputError as error:
        raise InputError(f"{uri}: uid: {error}") from None
    at = pc.index_in(_octets(uids), _octets(listed))
    named = groups[others[-1]].cast(pa.string()).combine_chunks().take(at)
    encoded = pc.fill_null(named, "unknown").dictionary_encode()
    return Subgroups(tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy())


def read_subgroups(uri: str) -> pa.Table:
    """The Parquet file at a URI. Raises InputError if it is unreadable or lacks the columns."""
    try:
        with open_uri(uri, in_order=False) as file:
            groups = open_parquet(file).read()
    except pa.ArrowException as error:
        raise InputError(f"{uri}: is not a readable Parquet file: {error}") from None
    if len(groups.column_names) < 2 or "uid" not in groups.column_names:
        raise InputError(
            f"{uri}: need columns uid and the subgroup, got {', '.join(groups.column_names)}"
        )
    return groups


def _octets(uids: np.ndarray) -> pa.Array:
    """Uid records as an Arrow array, for lookups."""
    data = pa.py_buffer(np.ascontiguousarray(uids).view(np.uint8))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(UID_DTYPE.itemsize), len(uids), [None, data]
    )


def keep_rates(
    kept: Sequence[np.ndarray], groups: Subgroups | None
) -> dict[str, tuple[float, ...]]:
    """Subgroup, sorted by name -> the share of it that each filter keeps."""
    if groups is None:
        return {}
    count = len(groups.names)
    members = np.bincount(groups.number_N, minlength=count)
    rates = [np.bincount(groups.number_N[mask], minlength=count) / members for mask in kept]
    return {
        groups.names[n]: tuple(float(rate[n]) for rate in rates)
        for n in sorted(range(count), key=groups.names.__getitem__)
    }
