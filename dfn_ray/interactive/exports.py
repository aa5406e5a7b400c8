"""The exports of a run, by what the target's name asks for."""

from __future__ import annotations

from dfn_ray.filtering.subset import export_subset


def export(run_uri: str, out_uri: str, *, shard_samples: int | None = None) -> int:
    """Writes the uid list of a finished subset if `out_uri` ends in .npy, else its tars.

    Returns the number of uids or of WebDataset tars. Raises InputError when the run has no finished
    subset, or the target contains anything else. `export_network` writes the network of a training.
    """
    if is_uid_list(out_uri):
        return export_subset.export_uids(run_uri, out_uri)
    samples = export_subset.SHARD_SAMPLES if shard_samples is None else shard_samples
    return export_subset.export_webdataset(run_uri, out_uri, shard_samples=samples)


def is_uid_list(out_uri: str) -> bool:
    """True if `export` writes a uid list to a target of this name, False if tars."""
    return out_uri.endswith(".npy")
