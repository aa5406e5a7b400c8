"""Comparison of selections and uid lists with the scores and the subset.

Covers the run's own selection and those in `selections/`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dfn_ray.config import Select
from dfn_ray.errors import VerificationError
from dfn_ray.filtering.selecting.select_run import select_rules
from dfn_ray.filtering.verifying.row_sums import RowSums, buckets
from dfn_ray.run import SELECTION, SELECTIONS, UID_LIST, Ledger, Run, RunKind, scan_subset
from dfn_ray.uids.records import UID_DTYPE, first_unsorted, npy_header, uid_records, uid_strings


def check_selections(run: Run, ledger: Ledger, *, full: bool) -> Iterator[str]:
    """Checks the output of `dfn-ray select` in `selections/`; yields lines to print.

    Each selection must equal the result of its rule on the stored scores, and its uid list must be
    sorted, contain k uids and match its digest. That takes all passes of selecting again, so only
    `full` does it. Raises VerificationError.
    """
    folders = [name.rstrip("/") for name in run.store.child(SELECTIONS).names()]
    if not folders or run.kind != RunKind.FILTER:
        return
    if not full:
        yield (
            f"notice: {len(folders):,} selections in {SELECTIONS}/ are not checked; --full checks "
            "them"
        )
        return
    by_network: dict[str, dict[str, Mapping[str, Any]]] = {}
    for folder in folders:
        name = f"{SELECTIONS}/{folder}/{SELECTION}"
        if (value := run.read_json(name)) is None:
            yield (
                f"notice: {SELECTIONS}/{folder}/ has no {SELECTION}, so it was not finished; "
                "select again"
            )
            continue
        by_network.setdefault(value["network"], {})[name] = value
        for _ in _sorted_uids(run, f"{SELECTIONS}/{folder}/{UID_LIST}", value):
            pass
    for network, stored in by_network.items():
        rules = [Select(**value["select"]) for value in stored.values()]
        found, _ = select_rules(run, rules, network, ledger)
        for (name, value), selected in zip(stored.items(), found, strict=True):
            require_selected(run, name, value, selected.to_json(run))
    checked = sum(map(len, by_network.values()))
    yield (
        f"the scores give the stored selections in {SELECTIONS}/: {checked:,} selections and their "
        "uids"
    )


def require_selected(run: Run, name: str, value: Mapping[str, Any], due: Mapping[str, Any]) -> None:
    """Raises VerificationError unless a stored selection equals `due`, computed from the scores."""
    for key, again in due.items():
        if key == "notes" and key not in value:
            continue  # runs of format 1 did not count notes
        # JSON has lists where Python has tuples.
        stored = value.get(key)
        stored = tuple(stored) if isinstance(again, tuple) and stored else stored
        require_promise(
            stored == again,
            f"{run.store.uri_of(name)}: {key} is {stored}, the scores yield {again}",
        )


def verify_uid_list(run: Run, value: Mapping[str, Any]) -> None:
    """Checks that `subset_uids.npy` is sorted and contains each kept uid as often as it is kept."""
    listed, expected = RowSums(), RowSums()
    # Compared by value, not by digest: another program may have written it.
    for uids in _sorted_uids(run, UID_LIST, {"k": value["k"]}):
        listed.add(uids["f0"], [uids["f1"]])
    for _, table in scan_subset(run, ["uid"]):
        uids = uid_records(table["uid"])
        expected.add(uids["f0"], [uids["f1"]])
    if (bucket := listed.first_difference(expected)) is not None:
        _raise_for_uid(run, bucket)


def _sorted_uids(run: Run, name: str, value: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """The uids of a selection's list, in pieces.

    Raises VerificationError unless they are sorted, k in number, and match the digest.
    """
    uri, digest = run.store.uri_of(name), hashlib.sha256()
    header, count = npy_header(value["k"]), 0
    last = np.empty(0, UID_DTYPE)
    with run.open(name) as file:
        octets = file.read(len(header))
        require_promise(octets == header, f"{uri}: is not a u8,u8 array of {value['k']:,} uids")
        while True:
            digest.update(octets)
            octets = file.read(UID_DTYPE.itemsize << 16)
            if not octets:
                break
            require_promise(len(octets) % UID_DTYPE.itemsize == 0, f"{uri}: ends within a uid")
            uids = np.frombuffer(octets, dtype=UID_DTYPE)
            require_promise(
                first_unsorted(np.concatenate([last, uids])) is None, f"{uri}: is not sorted"
            )
            last = uids[-1:]
            count += len(uids)
            yield uids
    require_promise(count == value["k"], f"{uri}: has {count:,} uids, its selection {value['k']:,}")
    written = value.get("uid_list_sha256", digest.hexdigest())
    require_promise(
        written == digest.hexdigest(),
        f"{uri}: is damaged or was altered: it does not match its digest; select again",
    )


def _raise_for_uid(run: Run, bucket: int) -> None:
    """Raises VerificationError naming a uid that list and subset contain unequally often."""
    counts: list[Counter[tuple[int, int]]] = [Counter(), Counter()]

    def take(counter: Counter[tuple[int, int]], uids: np.ndarray) -> None:
        counter.update(map(tuple, uids[buckets(uids["f0"]) == bucket].tolist()))

    with run.open(UID_LIST) as file:
        file.seek(len(npy_header(0)))
        while octets := file.read(UID_DTYPE.itemsize << 16):
            take(counts[0], np.frombuffer(octets, dtype=UID_DTYPE))
    for _, table in scan_subset(run, ["uid"]):
        take(counts[1], uid_records(table["uid"]))
    words = next(w for w in {**counts[0], **counts[1]} if counts[0][w] != counts[1][w])
    uid = uid_strings(np.array([words], UID_DTYPE))[0].as_py()
    raise VerificationError(
        f"{run.store.uri_of(UID_LIST)}: its uids are not those of the subset: {uid} is listed "
        f"{counts[0][words]} times and {counts[1][words]} times in the subset"
    )


def require_promise(holds: bool, breach: str) -> None:
    """Raises VerificationError with the text `breach` unless the promise holds."""
    if not holds:
        raise VerificationError(breach)
