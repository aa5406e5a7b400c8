"""The run on storage: its files, its commits, and its protection against a second writer.

    RUN_URI/
      run.json               kind, recipe, fingerprint, digest of the pool listing; written once
      pool.parquet           the pool listing: uri, name, size_bytes, fault of every shard
      attempts/000001.json   one per driver: host, time, recipe, versions, listing; the last one
                             holds the run
      spending/*.json        resources used by each attempt, for budgets
      bounds/NETWORK.json    [lo, hi] for the threshold, from calibration; written once
      scores/part-*.parquet  one row per sample; the footer names the chunks it commits
      subset/part-*.parquet  the kept samples
      borderline/part-*.parquet   only until the run is finalized
      parts-*.txt, files-*.txt    the parts of a selection, and the files of its subset
      selection.json         the rule and its exact result
      subset_uids.npy        sorted u8,u8 records

**Commit.** A part is named by its attempt and its content. Its subset and borderline files are
written first, its scores file last, each complete or absent, and the footer of the scores file
names the other two: the scores file is the commit. A crash in between leaves files that no scores
file names; readers skip them. The union of the footers is committed, nothing else. If two parts
commit the same chunk (a driver that was thought dead continued to write), the part of the later
attempt owns it, and readers skip it in the other.

**Fence.** A driver that resumes a run creates the next file of `attempts/`, which only one driver
can. Every write first checks that this file is still the last one. A write already in flight at a
takeover changes nothing that a reader sees: it creates a file with a unique name, replaces a file
by the same content, or is rejected by the store because it would replace an unknown version. On a
store that ignores conditional writes, two drivers that start within one request of each other can
both think that they hold the run, and `selection.json` can be reverted to that of the loser.

    kinds.py            kinds of run, and states of a selection
    layout.py           names of files and folders
    shapes.py           required fields of JSON files
    training_shapes.py  those of a training run's files
    sealed_json.py      JSON with a digest of itself, and lists of names by their digest
    sealed_parquet.py   Parquet files with a digest of themselves
    parts.py            a committed part: its name, footer and files
    ledger.py           the committed chunks
    attempts.py         the driver that holds the run, with its versions
    identity.py         fingerprints, digests and their differences
    relisting.py        two listings of one pool compared
    opened.py           the run itself: opened for reading, or held for writing
    scan.py             passes over parts and subset, with read-ahead
    scored.py           location of the scores of a run, and its deciding network
    places.py           samples as numbers
    resuming.py         creation and resumption of a run, and checks that it is the same run
"""

from dfn_ray.run.attempts import Attempt, create_attempt, require_attempts
from dfn_ray.run.identity import (
    RunIdentity,
    abbreviated,
    differences,
    fingerprint_digest,
    listing_digest,
    pool_identity,
    versions,
)
from dfn_ray.run.kinds import RunKind, State
from dfn_ray.run.layout import (
    BORDERLINE,
    BOUNDS,
    CHECKPOINTS,
    FORMAT_VERSION,
    GENERATIONS,
    MLFLOW,
    RESULT,
    RUN,
    SCORES,
    SELECTION,
    SELECTIONS,
    SPENDING,
    SUBSET,
    UID_LIST,
    bounds_file,
    part_file,
)
from dfn_ray.run.ledger import Ledger, canonical_ledger, scan_ledger
from dfn_ray.run.opened import Run, open_run
from dfn_ray.run.parts import (
    SCORE_AGAIN,
    Part,
    PartHeader,
    is_near_footer,
    newest_first,
    parquet_stems,
    part_footer,
    part_names,
    read_part,
    read_part_with_rows,
    read_parts,
)
from dfn_ray.run.places import rows_in_chunks, sample_position, shard_numbers
from dfn_ray.run.relisting import scored_sizes
from dfn_ray.run.resuming import (
    Acceptance,
    existing_run,
    refuse_old_format,
    resumable_run,
    start_run,
    take_over,
)
from dfn_ray.run.scan import read_ahead, read_columns, scan_parts, scan_subset
from dfn_ray.run.scored import (
    deciding_network,
    open_scored,
    require_scores,
    scores_of,
)
from dfn_ray.run.sealed_json import parsed_json, read_names
from dfn_ray.run.sealed_parquet import content_name, parquet_bytes
from dfn_ray.run.shapes import invalid_fields

__all__ = [
    "BORDERLINE",
    "BOUNDS",
    "CHECKPOINTS",
    "FORMAT_VERSION",
    "GENERATIONS",
    "MLFLOW",
    "RESULT",
    "RUN",
    "SCORES",
    "SCORE_AGAIN",
    "SELECTION",
    "SELECTIONS",
    "SPENDING",
    "SUBSET",
    "UID_LIST",
    "Acceptance",
    "Attempt",
    "Ledger",
    "Part",
    "PartHeader",
    "Run",
    "RunIdentity",
    "RunKind",
    "State",
    "abbreviated",
    "bounds_file",
    "canonical_ledger",
    "content_name",
    "create_attempt",
    "deciding_network",
    "differences",
    "existing_run",
    "fingerprint_digest",
    "invalid_fields",
    "is_near_footer",
    "listing_digest",
    "newest_first",
    "open_run",
    "open_scored",
    "parquet_bytes",
    "parquet_stems",
    "parsed_json",
    "part_file",
    "part_footer",
    "part_names",
    "pool_identity",
    "read_ahead",
    "read_columns",
    "read_names",
    "read_part",
    "read_part_with_rows",
    "read_parts",
    "refuse_old_format",
    "require_attempts",
    "require_scores",
    "resumable_run",
    "rows_in_chunks",
    "sample_position",
    "scan_ledger",
    "scan_parts",
    "scan_subset",
    "scored_sizes",
    "scores_of",
    "shard_numbers",
    "start_run",
    "take_over",
    "versions",
]
