"""Chaos test of whole rounds: kill -9 at random moments, then comparison with an undisturbed round.

Run it with python -m tests.chaos.kill_everything --minutes 60. A round filters a pool, trains on
the subset and evaluates the network, while drivers, scorers, decoders, commit tasks, training
workers and embedders are killed at random moments; a killed driver is restarted with the same
recipe. Afterwards all results must equal those of one undisturbed round, bit for bit: every score,
threshold and uid, the weights, the metrics; and `verify --full` must pass. Rounds are repeated
until the time is over, each with its own seed; the kills are added to tests/chaos/tally.json, from
where the next call continues.

Runs its own Ray cluster in its own folder and kills only processes of that cluster.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run import open_run
from dfn_ray.testing.random_networks import save_tiny_network
from dfn_ray.testing.sample_pools import write_pool
from dfn_ray.training.position import log_lines
from tests.chaos.victims import Cluster, Disturbed, end_by_signals, own_cluster
from tests.evaluation.conftest import write_layout

TALLY = Path(__file__).with_name("tally.json")
SHARDS, SAMPLES = 30, 200
SAMPLES_SEEN = 960
STAGES = {
    "filter": {"scorer": "ray::MapWorker(MapBatches(ScoreAndCommit", "decoder": "processes.server"},
    "train": {"training worker": "RayTrainWorker", "feeding task": "Read_ItemSource"},
    "evaluate": {"embedder": "EmbedderActor"},
}
"""The verbs of a round, and the processes killed in each besides its driver."""
STEPS = {
    "filter": ("calibrating", "scoring", "settling"),
    "train": ("train",),
    "evaluate": ("evaluate",),
}
"""Phases in each of which the driver is killed."""
MAX_KILLS = {"filter": 30, "train": 15, "evaluate": 12}
"""Kills per verb and round."""
PAUSE_S = (0.5, 6.0)
"""Pause between kills; long enough for some progress."""
FILTER = """
run_uri = "{root}/filter"
[pool]
uri = "{root}/pool"
chunk_rows = 16
[[networks]]
model = "local-dir:{root}/network"
[select]
keep_fraction = 0.3
[scorers]
max_size = 2
threads = 1
[calibration]
shards = 16
samples = 512
[execution]
chunks_per_part = 2
rounds = 30
"""
TRAIN = """
run_uri = "{root}/train"
samples_seen = {samples_seen}
batch_size = 32
[[sources]]
[sources.pool]
uri = "{root}/pool"
chunk_rows = 16
[model]
model = "local-dir:{root}/network"
[optimizer]
warmup_steps = 4
learning_rate = 1e-3
[checkpoints]
every_samples = 160
[logs]
every_steps = 1
[feed]
group_samples = 64
[workers]
threads = 1
max_failures = 30
"""
EVALUATE = """
run_uri = "{root}/eval"
[network]
model = "local-dir:{root}/network"
[scorers]
threads = 1
[[sets]]
name = "classes"
task = "zeroshot_classification"
[sets.pool]
uri = "{root}/classes"
[[sets]]
name = "captions"
task = "zeroshot_retrieval"
[sets.pool]
uri = "{root}/captions"
"""


@dataclass(frozen=True)
class Round:
    """The recipes and outputs of a round, in a folder with the pool, the network and the sets."""

    folder: Path

    @property
    def runs(self) -> tuple[Path, ...]:
        """The folder of a round's output."""
        return tuple(self.folder / name for name in ("filter", "train", "eval"))

    def recipe(self, verb: str) -> Path:
        """The recipe of a verb."""
        text = {"filter": FILTER, "train": TRAIN, "evaluate": EVALUATE}[verb]
        path = self.folder / f"{verb}.toml"
        path.write_text(text.format(root=self.folder, samples_seen=SAMPLES_SEEN))
        return path

    def step(self, verb: str) -> str:
        """The phase of a verb's driver; empty before it has written anything."""
        if verb == "filter":
            return filter_step(self.folder / "filter")
        run = self.runs[1 if verb == "train" else 2]
        return verb if run.is_dir() and any(run.iterdir()) else ""

    def clear(self) -> None:
        """Removes the output, for the next round."""
        for run in self.runs:
            shutil.rmtree(run, ignore_errors=True)
        for log in self.folder.glob("*.log"):
            if log.stem in STAGES:
                log.unlink()


def main() -> int:
    """Runs rounds until the time is over; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--minutes", type=float, default=60.0, help="begin no round after (60)")
    options.add_argument("--seed", type=int, help="of the first round (the one after the tally's)")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    say(f"in {folder}")
    write_pool(folder / "pool", shards=SHARDS, samples=SAMPLES)
    save_tiny_network(folder / "network", seed=0)
    write_layout(folder / "classes", task="zeroshot_classification")
    write_layout(folder / "captions", task="zeroshot_retrieval")
    round_, until = Round(folder), time.monotonic() + given.minutes * 60
    with own_cluster(folder) as cluster:
        for verb in STAGES:
            assert cluster.driver(verb, round_.recipe(verb)).wait() == 0, f"undisturbed {verb}"
        calm = outcome(folder)
        seed = tally()["rounds"] if given.seed is None else given.seed
        while time.monotonic() < until:
            round_.clear()
            killed = disturb(round_, cluster, random.Random(seed))
            differing = [name for name, value in outcome(folder).items() if value != calm[name]]
            assert not differing, f"seed {seed}: {', '.join(differing)} differ; see {folder}"
            verify_run(str(folder / "filter"), full=True)
            say(f"seed {seed}: {told(killed)}; {len(calm)} results equal bit for bit")
            add_to_tally(killed)
            seed += 1
    say(f"in all: {told(tally()['kills'])} in {tally()['rounds']} rounds")
    shutil.rmtree(folder)
    return 0


def disturb(round_: Round, cluster: Cluster, rng: random.Random) -> Counter[str]:
    """Runs a round in which every kind of process is killed."""
    killed: Counter[str] = Counter()
    for verb, victims in STAGES.items():
        job = Disturbed(
            cluster,
            verb,
            round_.recipe(verb),
            victims,
            rng,
            steps=STEPS[verb],
            step=lambda verb=verb: round_.step(verb),
            killed_before=tally()["kills"],
        )
        killed += job.run(lambda: rng.uniform(*PAUSE_S), MAX_KILLS[verb])
    return killed


def filter_step(run: Path) -> str:
    """The phase of a driver of `filter`, from the content of its run."""
    if not (run / "run.json").exists():
        return ""
    if (selection := run / "selection.json").exists():
        state = json.loads(selection.read_text())["state"]
        return "" if state == "final" else "settling"
    return "scoring" if any(run.glob("bounds/*.json")) else "calibrating"


def outcome(folder: Path) -> dict[str, object]:
    """All results of a round, by name."""
    runs = Round(folder).runs
    results = {
        path.name: json.loads(path.read_text())["metrics"] for path in runs[2].glob("eval/*.json")
    }
    assert len(results) == 2
    return {
        **filtered(runs[0]),
        "weights": (runs[1] / "network/open_clip_model.safetensors").read_bytes(),
        "losses": losses(runs[1]),
        "results": results,
    }


def losses(run: Path) -> list[tuple[int, float]]:
    """The loss of each committed step of a training run."""
    lines = [line for line in log_lines(open_run(str(run))) if "loss" in line]
    return [(line["steps"], line["loss"]) for line in lines]


def filtered(run: Path) -> dict[str, object]:
    """The results of a filtering run: its selection, and its rows in order."""
    selection = json.loads((run / "selection.json").read_text())
    # The names of parts and files hold the number of the attempt that wrote them.
    found: dict[str, object] = {
        "selection": {k: v for k, v in selection.items() if k not in ("parts", "files", "sha256")},
        "uids": (run / "subset_uids.npy").read_bytes(),
    }
    for folder, kind in (("scores", "parts"), ("subset", "files")):
        stems = (run / selection[kind]).read_text().splitlines()
        files = [run / folder / f"{stem.removesuffix('.parquet')}.parquet" for stem in stems]
        table = pa.concat_tables([pq.read_table(file) for file in files])
        table = table.replace_schema_metadata(None)
        shard = table.schema.get_field_index("shard")
        table = table.set_column(shard, "shard", table["shard"].cast(pa.string()))
        rows = table.sort_by([("shard", "ascending"), ("row", "ascending")])
        for name in rows.column_names:
            column = rows[name].combine_chunks()
            found[f"{folder}.{name}"] = exact(column)
    return found


def exact(column: pa.Array) -> object:
    """The bits of the values: NaN equals NaN, 0 is not -0."""
    if pa.types.is_floating(column.type):
        bits = column.to_numpy(zero_copy_only=False).view(np.uint32)
        return column.is_null().to_pylist(), bits.tolist()
    return column.to_pylist()


def tally() -> dict:
    """The kills of all rounds so far."""
    return json.loads(TALLY.read_text()) if TALLY.exists() else {"rounds": 0, "kills": {}}


def add_to_tally(killed: Counter[str]) -> None:
    """Adds the kills of a round without differences to the tally."""
    before = tally()
    kills = Counter(before["kills"]) + killed
    value = {
        "rounds": before["rounds"] + 1,
        "killed": sum(kills.values()),
        "kills": dict(sorted(kills.items())),
    }
    TALLY.write_text(json.dumps(value, indent=1) + "\n")


def told(killed: Counter[str] | dict[str, int]) -> str:
    """The number of kills, in total and by kind."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(killed.items()))
    return f"{sum(killed.values())} kills ({kinds})"


def say(text: str) -> None:
    """Prints a line without buffering."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    end_by_signals()
    sys.exit(main())
