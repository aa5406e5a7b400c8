"""kill -9 at random moments, then proof that nothing shows it: python -m tests.chaos.kill_everything

Filters a pool once undisturbed. Then filters it again while killing, at random moments and at least
`--kills` times in all, scorer actors, decode workers, commit tasks and the driver; a killed driver is
started again with the same recipe. At the end the subset's uids, the threshold and every score must
equal the undisturbed run's bit for bit, and `verify --full` must pass.

Runs its own Ray cluster in its own folder and kills only processes of that cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.filtering.verify import verify_run
from dfn_ray.testing.networks import save_tiny_network
from dfn_ray.testing.pools import write_pool

TARGETS = {
    "scorer": "ScorerActor",
    "decoder": "over_cells",
    "committer": "Committer",
    "driver": "",
}
OWN_CLUSTER = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""The variables by which drivers, and nobody else, are let in."""
RECIPE = """
run_uri = "{run}"
[pool]
uri = "{pool}"
chunk_rows = 16
[[networks]]
model = "local-dir:{network}"
[select]
keep_fraction = 0.3
[scorers]
max_size = 2
threads = 1
[calibration]
shards = {shards}
samples = {calibration}
[execution]
chunks_per_part = 2
attempts = 10
"""


def main() -> int:
    """Run both filterings and compare them; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--shards", type=int, default=40)
    options.add_argument("--samples", type=int, default=400, help="per shard")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    say(f"in {folder}")
    write_pool(folder / "pool", shards=given.shards, samples=given.samples)
    save_tiny_network(folder / "network", seed=0)
    with cluster(folder) as (address, head):
        calm = recipe(folder, "calm", given)
        assert drive(calm, address).wait() == 0, "the undisturbed run failed"
        killed = disturb(recipe(folder, "chaos", given), address, head, given)
    same = compare(folder / "calm", folder / "chaos")
    counted = verify_run(str(folder / "chaos"), full=True, say=say)
    say(f"killed {sum(killed.values())}: " + ", ".join(f"{n} {k}s" for k, n in killed.items()))
    say(f"{counted['samples']} samples, {counted['kept']} kept, {same} values equal bit for bit")
    shutil.rmtree(folder)
    return 0


def recipe(folder: Path, name: str, given: argparse.Namespace) -> Path:
    """The recipe file of a run."""
    path = folder / f"{name}.toml"
    path.write_text(
        RECIPE.format(
            run=folder / name,
            pool=folder / "pool",
            network=folder / "network",
            shards=given.shards // 2,
            calibration=given.shards // 2 * 32,
        )
    )
    return path


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A Ray head of our own; gives its address and process, and ends only its own processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray's sockets must have short paths.
    temp = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    command = [
        "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=4",
        "--include-dashboard=false", f"--temp-dir={temp}", "--object-store-memory=500000000",
    ]  # fmt: skip
    with open(folder / "cluster.log", "wb") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | OWN_CLUSTER)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert head.poll() is None, f"the cluster ended: {(folder / 'cluster.log').read_text()}"
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.2)
        time.sleep(5)
        yield f"127.0.0.1:{port}", psutil.Process(head.pid)
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            done(process.kill)
        shutil.rmtree(temp, ignore_errors=True)


def drive(recipe: Path, address: str) -> subprocess.Popen[bytes]:
    """A driver of its own that filters by the recipe."""
    environment = os.environ | OWN_CLUSTER | {"RAY_ADDRESS": address}
    with open(recipe.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dfn_ray.cli", "filter", str(recipe)],
            stdout=log,
            stderr=log,
            env=environment,
        )


def disturb(
    recipe: Path, address: str, head: psutil.Process, given: argparse.Namespace
) -> Counter[str]:
    """Filter while killing, the kills spread over the whole run by the rows committed so far."""
    rng = random.Random(given.seed)
    killed: Counter[str] = Counter()
    driver = drive(recipe, address)
    run, total = recipe.with_suffix(""), given.shards * given.samples
    while True:
        time.sleep(rng.uniform(0.0, 0.5))
        if (code := driver.poll()) is not None:
            assert code == 0, f"the driver failed: {recipe.with_suffix('.log').read_text()}"
            break
        if committed_rows(run) < total * (sum(killed.values()) + 0.5) / (given.kills + 1):
            continue
        kind = rng.choice(list(TARGETS))
        if kind == "driver":
            driver.kill()
            driver.wait()
            driver = drive(recipe, address)
        elif (victim := find(head, TARGETS[kind], rng)) is None or not done(victim.kill):
            continue
        killed[kind] += 1
        say(f"killed {kind} ({sum(killed.values())}) at {committed_rows(run):,} of {total:,} rows")
    assert sum(killed.values()) >= given.kills, f"only {sum(killed.values())} kills: a longer run"
    return killed


def committed_rows(run: Path) -> int:
    """Rows in the parts that are committed now."""
    return sum(pq.read_metadata(path).num_rows for path in run.glob("scores/part-*.parquet"))


def find(head: psutil.Process, title: str, rng: random.Random) -> psutil.Process | None:
    """One of the cluster's worker processes that runs such a stage now."""
    found = []
    for process in head.children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if command.startswith("ray::") and title in command:
            found.append(process)
    return rng.choice(found) if found else None


def done(kill: Callable[[], None]) -> bool:
    """Kill; False when the process was gone already."""
    try:
        kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def compare(calm: Path, chaos: Path) -> int:
    """Assert that two runs are equal in scores, threshold and subset; returns how many values were."""
    selections = [json.loads((run / "selection.json").read_text()) for run in (calm, chaos)]
    assert selections[0] == selections[1], "the selections differ"
    tables = []
    for run in (calm, chaos):
        for folder in ("scores", "subset"):
            files = sorted((run / folder).glob("*.parquet"))
            table = pa.concat_tables([pq.read_table(file) for file in files])
            columns = [c for c in table.column_names if c != "key"]
            table = table.select(columns).replace_schema_metadata(None)
            table = table.set_column(
                table.schema.get_field_index("shard"), "shard", table["shard"].cast(pa.string())
            )
            tables.append(table.sort_by([("shard", "ascending"), ("row", "ascending")]))
    assert tables[0].equals(tables[2]), "the scores differ"
    assert tables[1].equals(tables[3]), "the subsets differ"
    uids = [(run / "subset_uids.npy").read_bytes() for run in (calm, chaos)]
    assert uids[0] == uids[1], "the uid lists differ"
    return sum(table.num_rows * table.num_columns for table in tables[:2])


def say(text: str) -> None:
    """Say a line at once."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
