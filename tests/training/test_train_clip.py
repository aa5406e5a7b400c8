"""Complete trainings: Ray Train workers, gloo, checkpoints, and killed processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import psutil
import pytest
import torch

from dfn_ray.config import Network, recipe_values
from dfn_ray.errors import (
    ErrorLimitExceededError,
    FingerprintError,
    InputError,
    StorageError,
    TrainingFailedError,
)
from dfn_ray.pool import list_shards
from dfn_ray.run import open_run
from dfn_ray.testing.lethal import READER_KILLER
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of, write_pool
from dfn_ray.testing.waiting import until
from dfn_ray.training import chain as stream_module
from dfn_ray.training import fit as module
from dfn_ray.training.data.index import source_counts
from dfn_ray.training.data.next_samples import NextSamples
from dfn_ray.training.position import latest_position, log_lines
from dfn_ray.training.train_clip import train
from tests.on_ray.scrape import of_run, once, scrape

pytestmark = pytest.mark.ray


def steps_of(recipe) -> list[dict]:
    return [line for line in log_lines(open_run(recipe.run_uri)) if "loss" in line]


def places_seen(recipe) -> int:
    """Places of the plan that the run has seen: samples_seen minus the repeated ones."""
    import pyarrow.parquet as pq

    from dfn_ray.pool import list_shards
    from dfn_ray.training.data.index import split_index

    run = open_run(recipe.run_uri)
    with run.store.open("index.parquet") as file:
        table = pq.read_table(file)
    shards = [list_shards(source.pool) for source in recipe.sources]
    plan = NextSamples(
        run=run,
        recipe=recipe,
        indexes=split_index(table, recipe.sources, shards),
        feeding=None,  # type: ignore[arg-type]
        row_bytes=1,
    )
    seen = latest_position(run).seen
    whole = sum(group.samples for group in islice(plan.groups(), seen.groups))
    return whole + sum(end - first for spans in seen.spans.values() for first, end in spans)


def _exports(recipe, line: dict) -> None:
    """Prometheus receives the values in the run's own log."""
    exported = of_run(recipe.run_uri, scrape())
    assert "train_workers" in exported
    assert exported["train_total_samples"] == {"": recipe.samples_seen}
    for name in (
        "samples_seen",
        "samples_per_s",
        "loss",
        "logit_scale",
        "learning_rate",
        "workers",
    ):
        assert exported[f"train_{name}"] == {"": pytest.approx(line[name])}, name
    assert exported["train_data_wait_fraction"] == {"": pytest.approx(line["data_wait"])}


def test_a_run_sees_each_sample_once_a_pass_and_leaves_a_network_that_open_clip_loads(
    local_ray, train_recipe
):
    recipe = train_recipe()
    result = train(recipe)
    assert result["samples_seen"] == places_seen(recipe) == 640
    lines = steps_of(recipe)
    assert [line["samples_seen"] for line in lines] == list(range(32, 641, 32))
    assert lines[-1]["loss"] < lines[0]["loss"]
    once(lambda: _exports(recipe, lines[-1]))
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{result['network']}")
    start = open_clip.create_model(f"local-dir:{recipe.model.model.partition(':')[2]}")
    assert not torch.equal(model.text_projection, start.text_projection)
    run = open_run(recipe.run_uri)
    assert run.store.list("tensorboard")
    # Nothing is left to do, and nothing is done.
    before = run.store.list("generations")
    assert train(recipe) == result
    assert run.store.list("generations") == before
    # Stopped between the last checkpoint and the last file of the network: only that is made up
    # for.
    run.store.delete("network/open_clip_model.safetensors")
    assert train(recipe) == result
    assert run.store.exists("network/open_clip_model.safetensors")
    assert len(steps_of(recipe)) == 20


@pytest.mark.slow
def test_one_seed_gives_one_curve_and_another_seed_another(local_ray, train_recipe):
    curves = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = train_recipe(f"seed={seed}", "samples_seen=160", run=run)
        train(recipe)
        curves.append([line["loss"] for line in steps_of(recipe)])
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


@pytest.mark.slow
def test_no_sample_comes_twice_in_a_pass_however_many_workers_go_on_with_it(
    local_ray, train_recipe
):
    workers = {"min_size": 2, "max_size": 2, "threads": 1}
    recipe = train_recipe(workers=workers)
    train(recipe, until_samples=224)
    assert latest_position(open_run(recipe.run_uri)).samples_seen == 224
    assert places_seen(recipe) == 224
    assert all(line["workers"] == 2 for line in steps_of(recipe))
    train(train_recipe(workers={**workers, "min_size": 1}), until_samples=416)  # elastic
    assert places_seen(recipe) == 416
    train(train_recipe(workers={"threads": 1}))
    assert places_seen(recipe) == 640
    assert [line["samples_seen"] for line in steps_of(recipe)] == list(range(32, 641, 32))
    assert steps_of(recipe)[-1]["workers"] == 1


@pytest.mark.slow
def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint(local_ray, train_recipe):
    recipe = train_recipe("samples_seen=3200")
    killed = threading.Thread(target=kill_a_worker, args=(recipe.run_uri, 320))
    killed.start()
    result = train(recipe)
    killed.join()
    assert result["samples_seen"] == places_seen(recipe) == 3200
    assert [line["samples_seen"] for line in steps_of(recipe)] == list(range(32, 3201, 32))
    generations = {
        line["generation"] for line in log_lines(open_run(recipe.run_uri)) if "generation" in line
    }
    assert len(generations) == 2


def kill_a_worker(run_uri: str, after_samples: int) -> None:
    """Kills the training worker once the run has committed this many samples."""
    until(partial(os.path.exists, f"{run_uri}/run.json"))
    until(lambda: latest_position(open_run(run_uri)).samples_seen >= after_samples)
    # Of this process's own Ray, as the machine may train something else; the newest, as one of
    # another test may be ending.
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if "RayTrainWorker" in " ".join(process.cmdline())
    ]
    max(workers, key=psutil.Process.create_time).kill()


@pytest.mark.slow
def test_a_recipe_that_gives_other_weights_is_refused_by_name(local_ray, train_recipe):
    recipe = train_recipe("samples_seen=32", "checkpoints.every_samples=32")
    train(recipe)
    for change in ("seed=1", "optimizer.learning_rate=2e-3", "feed.group_samples=65"):
        with pytest.raises(FingerprintError, match=change.partition("=")[0].rpartition(".")[2]):
            train(train_recipe("samples_seen=32", "checkpoints.every_samples=32", change))
    # What only says where and how fast it runs is free.
    free = ["workers.max_failures=2", "logs.every_steps=3", "feed.no_progress_timeout_s=60"]
    placed = ["decode.labels.dfn-role=decode", "workers.labels.dfn-role=train"]
    every = "checkpoints.every_samples=32"
    train(train_recipe("samples_seen=32", every, *free, *placed))


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_at_once(local_ray, train_recipe):
    with pytest.raises(TrainingFailedError, match=r"the loss is nan.*learning_rate"):
        train(train_recipe("optimizer.learning_rate=1e30", "optimizer.warmup_steps=0"))


def test_a_source_without_usable_samples_is_wrong_input(local_ray, train_recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/0.tar").write_bytes(bytes(10240))
    with pytest.raises(InputError, match=r"sources\.0 \(pairs\): no usable sample"):
        train(train_recipe(sources=[{"pool": {"uri": str(tmp_path / "empty")}}]))


@pytest.mark.slow
def test_weights_are_averaged_with_their_start(local_ray, train_recipe, network):
    values = recipe_values(train_recipe("samples_seen=64"))["model"] | {"random_weights_seed": None}
    trained = train(train_recipe("samples_seen=64", model=values, run="plain"))
    half = train(train_recipe("samples_seen=64", "ensemble_alpha=0.25", model=values, run="half"))
    start, end, between = (
        open_clip.create_model(f"local-dir:{folder}").state_dict()
        for folder in (network, trained["network"], half["network"])
    )
    for name, tensor in between.items():
        expected = 0.75 * start[name] + 0.25 * end[name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)
    assert not torch.equal(start["text_projection"], end["text_projection"])


@pytest.mark.slow
def test_a_network_trained_onto_object_storage_scores_alike_in_dfn_ray_and_in_open_clip_alone(
    local_ray, train_recipe, tmp_path
):
    from dfn_ray.network.packed import build
    from dfn_ray.resolving.fetch_networks import fetch_network

    recipe = train_recipe("samples_seen=64", "run_uri=s3://runs/trained")
    result = train(recipe)
    assert result["network"] == "s3://runs/trained/network"
    assert places_seen(recipe) == 64
    store = open_run(recipe.run_uri).store
    for file in store.list("network"):
        (tmp_path / file.name).write_bytes(store.read(f"network/{file.name}"))
    source = f"local-dir:{tmp_path}"
    model, _, transform = open_clip.create_model_and_transforms(source)
    tokenizer = open_clip.get_tokenizer(source)
    from PIL import Image

    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(5)]
    texts = [f"picture number {n}" for n in range(5)]
    model.eval()
    with torch.inference_mode():
        image = model.encode_image(torch.stack([transform(i) for i in images]), normalize=True)
        expected = (image * model.encode_text(tokenizer(texts), normalize=True)).sum(dim=1)
    packed = fetch_network(Network(model=f"local-dir:{result['network']}"))
    from dfn_ray.network.tokenizer import tokenize

    pixels = np.stack([packed.transform.pixels_HWC(i, i.size) for i in images])
    found = build(packed).score(pixels, tokenize(packed.tokenizer, texts), batch_size=8).score_N
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run_with_the_reason(local_ray, train_recipe, monkeypatch):
    def broken(config):
        raise RuntimeError("no such device")

    monkeypatch.setattr(module, "train_worker", broken)
    recipe = train_recipe("samples_seen=64", "workers.max_failures=1")
    with pytest.raises(TrainingFailedError, match="after 2 starts of the workers without progress"):
        train(replace(recipe))


@pytest.mark.slow
def test_a_killed_driver_goes_on_from_its_last_checkpoint(local_ray, train_recipe, tmp_path):
    import json
    import subprocess
    import sys

    recipe = train_recipe("samples_seen=3200", "logs.tensorboard=false")
    script = "import json, sys; from dfn_ray.config import TrainRecipe, recipe_from; " + (
        "from dfn_ray.training.train_clip import train; "
        "train(recipe_from(json.loads(sys.argv[1]), kind=TrainRecipe))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_ADDRESS")}
    driver = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(recipe_values(recipe))],
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    while latest(recipe) < 480:
        assert driver.poll() is None, "it was to be killed before its end"
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    result = train(recipe)
    assert result["samples_seen"] == places_seen(recipe) == 3200
    assert [line["samples_seen"] for line in steps_of(recipe)] == list(range(32, 3201, 32))
    undisturbed = train_recipe("samples_seen=3200", "logs.tensorboard=false", run="undisturbed")
    train(undisturbed)
    curves = [[line["loss"] for line in steps_of(one)] for one in (recipe, undisturbed)]
    assert curves[0] == curves[1]  # of one worker: to the last bit
    told = [line for line in log_lines(open_run(recipe.run_uri)) if "generation" in line]
    assert {line["generation"] for line in told} == {1, 2}
    assert told[-1]["began_at"] >= 480
    assert told[-1]["repeats"] >= 0


def latest(recipe) -> int:
    """Samples that the run has committed; 0 if it does not exist yet."""
    if not os.path.exists(f"{recipe.run_uri}/run.json"):
        return 0
    return latest_position(open_run(recipe.run_uri)).samples_seen


@pytest.mark.slow
def test_bad_shards_end_training_before_workers_start_and_are_named(
    local_ray, train_recipe, pool, tmp_path, capsys
):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("00000.tar", "00001.tar"):
        (folder / name).write_bytes((pool / name).read_bytes())
    (folder / "00002.tar").write_bytes(b"<html>503</html>" * 40)
    sources = [{"pool": {"uri": f"{folder}/{{00000..00003}}.tar", "chunk_rows": 16}}]
    recipe = train_recipe("samples_seen=64", sources=sources)
    with pytest.raises(
        ErrorLimitExceededError, match=r"2 of 4 shards are bad, e\.g\. .*00002\.tar"
    ):
        train(recipe)
    assert not open_run(recipe.run_uri).store.list("generations")
    said = "source pairs: 100 samples read, 100 used per pass; 0 failed; 2 of 4 shards bad"
    assert said in capsys.readouterr().err
    result = train(train_recipe("samples_seen=64", "max_bad_shard_fraction=0.5", sources=sources))
    (source,) = result["sources"]
    assert (source["shards"], source["bad_shards"], source["samples"]) == (4, 2, 100)
    assert result == open_run(recipe.run_uri).read_json("result.json")


@pytest.mark.slow
def test_images_that_fail_are_counted_once_over_restarts_and_judged(
    local_ray, train_recipe, tmp_path
):
    tar = TarBuilder()
    for n in range(60):
        image = b"<html>gone</html>" if n % 3 == 0 else photo(n)
        tar.sample(f"{n:03d}", image=image, caption=f"number {n}", metadata={"uid": uid_of(n)})
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "0.tar").write_bytes(tar.getvalue())
    sources = [{"pool": {"uri": str(tmp_path / "third"), "chunk_rows": 16}}]
    # Two passes: 80 good places, 40 that fail.
    settings = ("samples_seen=80", "batch_size=8", "checkpoints.every_samples=16")
    with pytest.raises(ErrorLimitExceededError, match=r"failed \(not_an_image \d+\).*allows 25%"):
        train(train_recipe(*settings, sources=sources))
    once = train(train_recipe(*settings, "max_failed_fraction=0.5", sources=sources))
    assert train(train_recipe(*settings, "max_failed_fraction=0.5", sources=sources)) == once
    interrupted = train_recipe(*settings, "max_failed_fraction=0.5", sources=sources, run="parts")
    for stop in (16, 48):
        train(interrupted, until_samples=stop)
    assert train(interrupted)["failed"] == once["failed"]
    assert 36 <= once["failed"]["not_an_image"] <= 40
    lines = log_lines(open_run(interrupted.run_uri))
    counted = [line["failed"].get("not_an_image", 0) for line in lines if "checkpoint" in line]
    assert sum(counted) == once["failed"]["not_an_image"]


@pytest.mark.slow
def test_images_of_which_none_decodes_end_training_with_their_reason(
    local_ray, train_recipe, tmp_path
):
    tar = TarBuilder()
    for n in range(40):
        tar.sample(f"{n:03d}", image=b"\xff\xd8\xff broken", caption=f"number {n}")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "0.tar").write_bytes(tar.getvalue())
    with pytest.raises(ErrorLimitExceededError, match=r"samples failed \(decode_error"):
        train(train_recipe("samples_seen=64", sources=[{"pool": {"uri": str(tmp_path / "none")}}]))


def test_a_store_that_fails_for_a_while_costs_no_shard_and_one_that_goes_on_failing_ends_indexing(
    local_ray, train_recipe, tmp_path, monkeypatch
):
    def failing_reader(times):
        folder = tmp_path / f"failed-{times}"
        folder.mkdir()

        def index(item):
            from dfn_ray.training.data.index import index_shard

            number = item.shard_number
            notes = list(folder.glob(f"{number}-*"))
            if number % 2 and len(notes) < times:
                (folder / f"{number}-{len(notes)}").touch()
                raise StorageError(f"{item.shard.uri}: cannot read it: 503")
            yield index_shard(item.source, item.source_number, item.shard, number, item.crash)

        return index

    recipe = train_recipe()
    shards = [list_shards(recipe.sources[0].pool)]
    said = []
    monkeypatch.setattr(stream_module, "_index", failing_reader(2))
    table = stream_module.index_sources(recipe, shards, said.append)
    (found,) = source_counts(table, recipe.sources, shards)
    assert (found.samples, len(found.faults), table["samples"].to_pylist().count(0)) == (300, 0, 6)
    assert len([line for line in said if "remain to be indexed" in line]) == 2
    monkeypatch.setattr(stream_module, "_index", failing_reader(100))
    with pytest.raises(StorageError, match=r"cannot read it: 503$"):
        stream_module.index_sources(recipe, shards, said.append)


@pytest.mark.slow
def test_shards_that_kill_their_reader_are_faults_of_the_index_and_cost_nothing_else(
    local_ray, train_recipe, tmp_path, capsys
):
    folder = write_pool(tmp_path / "pool", shards=3, samples=20)
    (folder / "00001.tar").rename(folder / f"00001-{READER_KILLER}.tar")
    tar = TarBuilder()
    for n in range(20):
        what = READER_KILLER if n == 11 else "plain"
        tar.sample(f"{n:03d}", image=photo(n), caption=f"number {n}", metadata={"what": what})
    (folder / "00003.tar").write_bytes(tar.getvalue())
    sources = [{"pool": {"uri": str(folder), "chunk_rows": 4}}]
    with pytest.raises(ErrorLimitExceededError, match=r"2 of 4 shards are bad.*crashes_reader"):
        train(train_recipe("samples_seen=64", sources=sources, run="strict"))
    assert "00003.tar: given up, reading from here on kills the process" in capsys.readouterr().err
    result = train(train_recipe("samples_seen=64", "max_bad_shard_fraction=0.5", sources=sources))
    (source,) = result["sources"]
    assert (source["shards"], source["bad_shards"]) == (4, 2)
    what = "crashes_reader: reading from here on kills the process (signal 11)"
    named = {Path(uri).name: fault for uri, fault in source["faults"].items()}
    assert named == {f"00001-{READER_KILLER}.tar": what, "00003.tar": what}
    # Two whole shards, and of the last one the two chunks in front of the sample that kills.
    assert (source["samples"], source["usable"]) == (48, 48)
