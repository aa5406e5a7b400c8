"""Scores by uid from a file: Parquet (DataComp's metadata, a part of a run) or npz."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.errors import InputError, last_line
from dfn_ray.storage import open_uri, read_uri
from dfn_ray.uids.records import UID_DTYPE, uid_records

MAX_ROWS = 2**24
"""Larger than DataComp's small pool. Each row takes 20 bytes of memory: 336 MB."""
_UID = "uid"
_DATACOMP = {
    "clip_b32_similarity_score": (12, 768, 32),
    "clip_l14_similarity_score": (24, 1024, 14),
}
"""DataComp's columns -> layers, width and patch size of their vision tower (both with OpenAI's
weights)."""
_USUAL = ("score", "scores", "similarity", "clip_score", "clipscore", "cosine")
_BATCH_ROWS = 2**18


@dataclass(frozen=True)
class Reference:
    """Scores by uid."""

    uri: str
    column: str
    uids: np.ndarray
    """Sorted and unique, `UID_DTYPE`."""
    scores: np.ndarray
    """float64; NaN where the reference has no score."""
    is_half: bool
    """True if every score is a float16 value: stored, or computed, in float16."""
    ambiguous: int
    """Uids that were ignored because the file holds several scores for them."""

    def scores_of(
        self, uids: pa.Array | pa.ChunkedArray | Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A mask of the uids that it contains, and their scores, NaN for others."""
        records = uid_records(
            uids if isinstance(uids, pa.Array | pa.ChunkedArray) else pa.array(uids)
        )
        place = np.searchsorted(self.uids, records)
        place[place == len(self.uids)] = 0
        has = (self.uids[place] == records) if len(self.uids) else np.zeros(len(records), bool)
        return has, np.where(has, self.scores[place] if len(self.uids) else np.nan, np.nan)


def read_reference(
    uri: str, column: str | None, *, model_cfg: Mapping[str, Any], network: str
) -> Reference:
    """Reads the scores of a file.

    `column` None: chosen by the network's architecture and name. Raises InputError when the file
    has another format, no uids, or several candidate columns; StorageError when it cannot be read.
    """
    read = _read_npz if uri.endswith(".npz") else _read_parquet
    name, uids, scores = read(uri, column, model_cfg, network)
    finite = scores[np.isfinite(scores)]
    if len(finite) and np.abs(finite).max() > 1.01:
        raise InputError(
            f"{uri}: {name}: need cosine similarities from -1 to 1, got up to "
            f"{np.abs(finite).max():.4g}. Divide the scores by their scale"
        )
    distinct, first, inverse = np.unique(uids, return_index=True, return_inverse=True)
    scores = scores.astype(np.float64)
    other = ~_equal(scores, scores[first][inverse])
    ambiguous = np.zeros(len(distinct), bool)
    ambiguous[inverse[other]] = True
    return Reference(
        uri=uri,
        column=name,
        uids=distinct[~ambiguous],
        scores=scores[first][~ambiguous],
        is_half=bool((finite.astype(np.float16).astype(np.float64) == finite).all()),
        ambiguous=int(ambiguous.sum()),
    )


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _read_parquet(
    uri: str, column: str | None, model_cfg: Mapping[str, Any], network: str
) -> tuple[str, np.ndarray, np.ndarray]:
    with open_uri(uri, in_order=False) as file:
        try:
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            _require_columns(uri, schema.names)
            _require_rows(uri, parquet.metadata.num_rows)
            numeric = [f.name for f in schema if pa.types.is_floating(f.type)]
            name = _score_column(uri, column, numeric, model_cfg, network)
            uids, scores = [np.zeros(0, UID_DTYPE)], [np.zeros(0)]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=[_UID, name]):
                uids.append(_records(uri, batch.column(_UID)))
                scores.append(batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64))
        # Of damaged files pyarrow raises these too.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{uri}: cannot be read as Parquet: {error}. Need Parquet or .npz with a column "
                "uid and a column of scores"
            ) from None
    return name, np.concatenate(uids), np.concatenate(scores)


def _read_npz(
    uri: str, column: str | None, model_cfg: Mapping[str, Any], network: str
) -> tuple[str, np.ndarray, np.ndarray]:
    content = read_uri(uri)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            names = [name.removesuffix(".npy") for name in file.namelist()]
            _require_columns(uri, names)
            others = {name: _array(file, name) for name in names}
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  zipfile, zlib and numpy raise any type
        raise InputError(
            f"{uri}: cannot be read as npz without pickles: {last_line(error)}"
        ) from None
    uids = others.pop(_UID)
    _require_rows(uri, uids.size)
    numeric = [name for name, array in others.items() if array.dtype.kind == "f"]
    name = _score_column(uri, column, numeric, model_cfg, network)
    if others[name].shape != uids.shape or uids.ndim != 1:
        raise InputError(
            f"{uri}: need a score for each uid, got arrays of shape {uids.shape} and "
            f"{others[name].shape}"
        )
    records = uids if uids.dtype == UID_DTYPE else _records(uri, pa.array(uids.tolist()))
    return name, records, others[name].astype(np.float64)


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz; its size is bounded by that of its member."""
    array = np.load(io.BytesIO(file.read(f"{name}.npy")), allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: need an array, got {type(array).__name__}")
    return array


def _records(uri: str, uids: pa.Array) -> np.ndarray:
    try:
        return uid_records(uids)
    except (InputError, pa.ArrowException) as error:
        raise InputError(f"{uri}: {_UID}: {last_line(error)}") from None


def _require_columns(uri: str, names: Sequence[str]) -> None:
    """Raises InputError if there are no uids, or two columns have the same name."""
    if _UID not in names:
        raise InputError(
            f"{uri}: need a column {_UID} to match samples, got {', '.join(names) or 'none'}"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"{uri}: need one column of each name, got two named {twice[0]}")


def _require_rows(uri: str, rows: int) -> None:
    if rows > MAX_ROWS:
        raise InputError(
            f"{uri}: has {rows:,} rows, more than the {MAX_ROWS:,} that are held in memory. Use a "
            "file that covers a few shards"
        )


def _score_column(
    uri: str, column: str | None, numeric: Sequence[str], model_cfg: Mapping[str, Any], network: str
) -> str:
    """The column to read. Raises InputError, listing the numeric columns, when it is ambiguous."""
    listed = ", ".join(numeric) or "none"
    if column is not None:
        if column in numeric:
            return column
        raise InputError(f"--column: {uri} has no floating-point column {column}; it has {listed}")
    vision = model_cfg.get("vision_cfg", {})
    tower = tuple(vision.get(key) for key in ("layers", "width", "patch_size"))
    likely = [name for name, made_by in _DATACOMP.items() if made_by == tower]
    for name in (f"score_{network}", *likely, *_USUAL):
        if name in numeric:
            return name
    if len(numeric) == 1:
        return numeric[0]
    raise InputError(
        f"{uri}: cannot determine the column with the scores of {network}. Choose one with "
        f"--column: {listed}"
    )
