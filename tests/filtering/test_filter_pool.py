"""The whole filtering job on a real local Ray, against open_clip and a plain sort."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dfn_ray.errors import (
    DamagedRunError,
    ErrorLimitExceededError,
    FingerprintError,
    InputError,
    RunTakenOverError,
    VerificationError,
)
from dfn_ray.filtering.filter_pool import filter_pool, materialize, score, select
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.pool import iter_chunks, list_shards
from dfn_ray.run import bounds_file, open_run, take_over
from dfn_ray.storage import Store
from dfn_ray.testing.sample_pools import TarBuilder, write_pool
from dfn_ray.testing.waiting import meanwhile, until
from tests.run.forging import forge

pytestmark = pytest.mark.ray


def read(folder: Path) -> pa.Table:
    files = sorted(folder.glob("*.parquet"))
    tables = [pq.read_table(file) for file in files]
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def kept(run: str) -> dict[tuple[str, int], dict]:
    """The subset by (shard, row); fails on a duplicate sample."""
    rows = read(Path(run) / "subset").to_pylist()
    found = {(row["shard"], row["row"]): row for row in rows}
    assert len(found) == len(rows), "a sample is in the subset twice"
    return found


def scores(run: str) -> dict[tuple[str, int], float | None]:
    rows = read(Path(run) / "scores").to_pylist()
    found = {(row["shard"], row["row"]): row["score_dfn"] for row in rows}
    assert len(found) == len(rows), "a sample has two rows"
    return found


def by_open_clip(network: Path, pool) -> dict[tuple[str, int], float]:
    """The scores of every sample by open_clip alone, one at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{network}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{network}")
    model.eval()
    found = {}
    for shard in list_shards(pool):
        for _, table in iter_chunks(shard, pool):
            for row in table.to_pylist():
                with Image.open(io.BytesIO(row["image"])) as image, torch.no_grad():
                    pixels = preprocess(image.convert("RGB"))[None]
                    image_embedding = model.encode_image(pixels, normalize=True)
                    text_embedding = model.encode_text(tokenize([row["text"]]), normalize=True)
                found[shard.uri, row["row"]] = float((image_embedding * text_embedding).sum())
    return found


def test_filter_keeps_exactly_the_best_by_open_clips_own_scores(finished, network):
    expected = by_open_clip(network, finished.pool)
    found = scores(finished.run_uri)
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in found) < 1e-5
    assert len(kept(finished.run_uri)) == 90
    best = sorted(found, key=lambda key: -found[key])[:90]
    assert set(kept(finished.run_uri)) == set(best)
    assert verify_run(finished.run_uri, full=True)["compared"] == 90


def test_the_subset_carries_bytes_captions_and_metadata_untouched(finished):
    job = finished
    found = kept(job.run_uri)
    for shard in list_shards(job.pool):
        for _, table in iter_chunks(shard, job.pool):
            for row in table.to_pylist():
                if (mine := found.get((shard.uri, row["row"]))) is not None:
                    for name in ("uid", "image", "text", "metadata"):
                        assert mine[name] == row[name]


def test_the_result_is_the_same_in_one_pass_and_apart(finished, recipe, pool):
    apart = recipe(pool, run="apart")
    score(apart)
    assert not (Path(apart.run_uri) / "subset").exists()
    assert select(apart)["k"] == 90
    materialize(apart)
    _require_same(apart.run_uri, finished.run_uri)


@pytest.mark.parametrize(
    ("below", "above"),
    [
        (0.01, 0.01),
        pytest.param(-0.2, 0.3, marks=pytest.mark.slow),
        pytest.param(0.3, -0.2, marks=pytest.mark.slow),
        pytest.param(0.0, 0.0, marks=pytest.mark.slow),
    ],
    ids=["narrow", "far too high", "far too low", "at the threshold"],
)
def test_the_result_is_the_same_however_bounds_and_parts_fall(finished, recipe, pool, below, above):
    stored = json.loads((Path(finished.run_uri) / "selection.json").read_text())
    job = recipe(pool, "execution.chunks_per_part=5", run="other")
    _with_bounds(job, stored["threshold"] - below, stored["threshold"] + above)
    filter_pool(job)
    _require_same(job.run_uri, finished.run_uri)


def _require_same(run: str, expected: str) -> None:
    assert scores(run) == scores(expected)
    assert kept(run) == kept(expected)
    verify_run(run, full=True)
    assert np.array_equal(*(np.load(Path(uri) / "subset_uids.npy") for uri in (run, expected)))


def _with_bounds(job, lo: float, hi: float) -> None:
    """Stores bounds before the run starts, as a wrong calibration would have."""
    from dfn_ray.filtering.scoring.scoring_job import open_job

    opened = open_job(job, keep_bytes=True)
    lo, hi = float(np.float32(lo)), float(np.float32(hi))
    opened.run.write_json(bounds_file(job.deciding_network), {"lo": str(lo), "hi": str(hi)})


def test_calibrated_bounds_keep_most_bytes_from_travelling(local_ray, recipe, tmp_path):
    from dfn_ray.testing.sample_pools import write_pool

    many = write_pool(tmp_path / "many", shards=20, samples=40)
    job = recipe(
        many, "calibration.samples=320", "calibration.shards=20", "select.keep_fraction=0.2"
    )
    filter_pool(job)
    bounds = json.loads((Path(job.run_uri) / "bounds" / "dfn.json").read_text())
    assert -1 < float(bounds["lo"]) < float(bounds["hi"]) < 1
    assert len(kept(job.run_uri)) == 160
    verify_run(job.run_uri, full=True)


def test_a_run_that_lost_parts_makes_up_for_just_those(finished):
    job = finished
    expected = kept(job.run_uri), scores(job.run_uri)
    run = Path(job.run_uri)
    (run / "selection.json").unlink()
    parts = sorted((run / "scores").glob("*.parquet"))
    # The last chunk of a shard stays where its first is lost, and the other way round.
    lost = [path for path in parts if 0 in pq.read_table(path, columns=["row"])["row"].to_pylist()]
    for path in lost:
        path.unlink()
    stays = {path: path.stat().st_mtime_ns for path in parts if path not in lost}
    assert stays
    filter_pool(job)
    assert (kept(job.run_uri), scores(job.run_uri)) == expected
    assert {path: path.stat().st_mtime_ns for path in stays} == stays
    verify_run(job.run_uri, full=True)


@pytest.mark.parametrize("verb", [filter_pool, score])
def test_a_resume_reads_the_record_of_its_run_before_networks_are_fetched_and_when_it_takes_over(
    finished, monkeypatch, verb
):
    reads, plain = [], Store.read
    monkeypatch.setattr(Store, "read", lambda store, name: reads.append(name) or plain(store, name))
    verb(finished)
    assert reads.count("run.json") == 2


def test_files_of_a_crash_between_bytes_and_commit_are_ignored_and_removed(finished):
    job = finished
    (Path(job.run_uri) / "selection.json").unlink()
    subset = Path(job.run_uri) / "subset"
    orphan = subset / "part-00000000000000000000000000000000.parquet"
    pq.write_table(pa.table({"uid": ["0" * 32], "shard": ["x"], "row": [0]}), orphan)
    filter_pool(job)
    assert not orphan.exists()
    verify_run(job.run_uri, full=True)


def test_two_parts_that_commit_the_same_chunk_count_it_once(finished, recipe, pool):
    """A driver thought dead continues to write: its parts overlap those of its successor."""
    first = recipe(pool, "execution.chunks_per_part=5", run="first")
    score(first)
    second = finished
    for part in (Path(first.run_uri) / "scores").glob("*.parquet"):
        target = Path(second.run_uri) / "scores" / part.name
        target.write_bytes(part.read_bytes())
    (Path(second.run_uri) / "selection.json").unlink()
    filter_pool(second)
    assert len(kept(second.run_uri)) == 90
    counted = verify_run(second.run_uri, full=True)
    assert counted["samples"] == 300


def test_select_again_gives_other_fractions_without_touching_the_subset(finished, recipe, pool):
    job = finished
    before = kept(job.run_uri)
    for fraction in (0.0, 0.1, 0.29, 1.0):
        other = recipe(pool, f"select.keep_fraction={fraction}")
        value = select(other)
        assert value["k"] == int(round(fraction * 300, 6))
    listed = np.load(Path(job.run_uri) / "selections" / "fraction-0.1-of-pool" / "subset_uids.npy")
    ranked = sorted(scores(job.run_uri).items(), key=lambda item: -item[1])[:30]
    uids = {
        (row["shard"], row["row"]): row["uid"]
        for row in read(Path(job.run_uri) / "scores").to_pylist()
    }
    assert sorted(f"{a:016x}{b:016x}" for a, b in listed.tolist()) == sorted(
        uids[key] for key, _ in ranked
    )
    assert kept(job.run_uri) == before
    with pytest.raises(InputError, match=r"another selection, keep_fraction = 0\.3"):
        filter_pool(recipe(pool, "select.keep_fraction=0.1"))


def test_materialize_into_another_folder_takes_a_wider_selection_from_the_pool(
    finished, recipe, pool, tmp_path
):
    job = finished
    before = kept(job.run_uri)
    wider = recipe(pool, "select.keep_fraction=0.5")
    out = str(tmp_path / "wider")
    assert materialize(wider, out_uri=out)["k"] == 150
    found = kept(out)
    assert len(found) == 150
    assert {key: row["image"] for key, row in found.items() if key in before} == {
        key: row["image"] for key, row in before.items()
    }
    assert kept(job.run_uri) == before


def test_a_materialized_folder_is_verified_exported_and_resumed_like_any_run(
    finished, recipe, pool, tmp_path
):
    from dfn_ray.filtering.subset.export_subset import export_webdataset

    job = finished
    out = tmp_path / "out"
    value = materialize(job, out_uri=str(out))
    assert verify_run(str(out), full=True)["compared"] == 90
    assert export_webdataset(str(out), str(tmp_path / "tars"), shard_samples=40) == 3
    with pytest.raises(
        InputError, match=f"run_uri must be a scored run, such as file://{job.run_uri}"
    ):
        select(recipe(pool, f"run_uri={out}"))
    whole = kept(str(out))
    # A crash leaves the folder without its selection and with some of the files.
    (out / "selection.json").unlink()
    sorted((out / "subset").glob("*.parquet"))[0].unlink()
    assert materialize(job, out_uri=str(out)) == value
    assert kept(str(out)) == whole
    path = sorted((out / "subset").glob("*.parquet"))[0]
    forge(path, pq.read_table(path).slice(1))
    with pytest.raises(VerificationError, match="kept by the selection but not in the subset"):
        verify_run(str(out))


def test_materialize_into_a_folder_of_something_else_is_refused_and_leaves_it_as_it_is(
    finished, recipe, pool, tmp_path
):
    job = finished
    wider, out = recipe(pool, "select.keep_fraction=0.5"), tmp_path / "out"
    materialize(wider, out_uri=str(out))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder, message in (
        (job.run_uri, "contains another run(.|\n)*kind: run has filter"),
        (out, r"contains another run(.|\n)*select.keep_fraction: run has 0\.5, recipe has 0\.3"),
        (tmp_path / "mine", r"contains photo\.jpg but no run\.json"),
        (tmp_path / "mine" / "photo.jpg", "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            materialize(job, out_uri=str(folder))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_two_networks_score_in_one_pass_and_either_may_decide(
    local_ray, recipe, pool, other_network
):
    job = recipe(pool)
    networks = [
        {"name": "dfn", "model": job.networks[0].model},
        {"name": "other", "model": f"local-dir:{other_network}"},
    ]
    from dfn_ray.config import recipe_from, recipe_values

    both = recipe_from(
        recipe_values(job)
        | {"networks": networks, "select": {"keep_count": 40, "network": "other"}}
    )
    filter_pool(both)
    table = read(Path(both.run_uri) / "scores")
    by_other = dict(zip(table["uid"].to_pylist(), table["score_other"].to_pylist(), strict=True))
    best = sorted(by_other, key=lambda uid: -by_other[uid])[:40]
    assert {row["uid"] for row in kept(both.run_uri).values()} == set(best)
    assert table["score_dfn"].null_count == 0
    verify_run(both.run_uri, full=True)


def test_fewer_scores_than_were_asked_for_are_all_kept_and_it_is_said(finished, recipe, pool):
    from dfn_ray.filtering.selecting.selection_table import selection_table

    job = recipe(pool, "select.keep_fraction=none", "select.keep_count=1000")
    value = select(job)
    assert (value["requested"], value["k"]) == (1000, 300)
    said = selection_table(job.run_uri, value)
    assert "warning: the rule requests 1,000 samples, only 300 have a score" in said
    verify_run(job.run_uri)


def test_embeddings_are_kept_on_request_and_give_the_score(local_ray, recipe, pool):
    job = recipe(pool, "scorers.keep_embeddings=true")
    filter_pool(job)
    for row in read(Path(job.run_uri) / "scores").to_pylist():
        image, text = row["image_embedding_dfn"], row["text_embedding_dfn"]
        assert abs(np.dot(image, text) - row["score_dfn"]) < 2e-3


def test_a_pool_that_is_bad_stops_the_run_and_says_why(local_ray, recipe, tmp_path):
    tar = TarBuilder()
    for index in range(40):
        tar.sample(f"{index:03d}", image=b"<html>gone</html>", caption="a cat")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.tar").write_bytes(tar.getvalue())
    with pytest.raises(ErrorLimitExceededError, match=r"40 of 40 samples failed.*not_an_image"):
        filter_pool(recipe(tmp_path / "bad"))
    value = filter_pool(recipe(tmp_path / "bad", "execution.max_failed_fraction=1.0"))
    assert value["counts"] == {"failed/not_an_image": 40}
    assert value["k"] == 0
    verify_run(recipe(tmp_path / "bad").run_uri, full=True)


def test_rules_that_reject_all_stop_the_run_or_leave_an_empty_subset(local_ray, recipe, pool):
    rule = "rules.min_caption_words=1000"
    why = (
        r"300 of 300 samples were rejected \(caption_words 300\); execution\.max_rejected_fraction"
    )
    with pytest.raises(ErrorLimitExceededError, match=why):
        filter_pool(recipe(pool, rule))
    job = recipe(pool, rule, "execution.max_rejected_fraction=1.0")
    value = filter_pool(job)
    assert value["counts"] == {"rejected/caption_words": 300}
    assert value["k"] == 0
    assert not kept(job.run_uri)
    assert filter_pool(job) == value
    verify_run(job.run_uri, full=True)


def test_rules_reject_before_decoding_and_are_counted(local_ray, recipe, tmp_path):
    from dfn_ray.testing.sample_pools import photo

    tar = TarBuilder()
    tar.sample("0", image=photo(0, (300, 250)), caption="three whole words")
    tar.sample("1", image=photo(1, (300, 250)), caption="two words")
    tar.sample("2", image=photo(2, (300, 250)), caption="a b c")
    tar.sample("3", image=photo(3, (300, 199)), caption="three whole words")
    tar.sample("4", image=photo(4, (601, 200)), caption="three whole words")
    tar.sample("5", image=photo(5, (600, 200)), caption="three whole words")
    tar.sample(
        "6",
        image=photo(6, (64, 64)),
        caption="small copy of a large image",
        metadata={"original_width": 640, "original_height": 640},
    )
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "0.tar").write_bytes(tar.getvalue())
    job = recipe(
        tmp_path / "p",
        "rules.min_caption_words=3",
        "rules.min_caption_chars=6",
        "rules.min_image_side=200",
        "rules.max_aspect_ratio=3.0",
        "select.keep_fraction=1.0",
    )
    value = filter_pool(job)
    assert value["counts"] == {
        "scored": 3,
        "rejected/caption_words": 1,
        "rejected/caption_chars": 1,
        "rejected/image_side": 1,
        "rejected/aspect_ratio": 1,
    }
    assert {row["key"] for row in kept(job.run_uri).values()} == {"0", "5", "6"}


CHANGES = [
    "pool.chunk_rows=8",
    "pool.chunk_bytes=1048576",
    "pool.uid=derive",
    "pool.format=webdataset",
    "pool.max_image_bytes=2000000",
    "pool.max_caption_bytes=100",
    "pool.image_column=jpg",
    "pool.text_column=txt",
    "rules.min_caption_words=1",
    "rules.min_caption_chars=1",
    "rules.min_image_side=1",
    "rules.max_aspect_ratio=9.0",
    "decode.mode=fast",
    "decode.on_truncated=fail",
    "decode.max_pixels=1000000",
    "networks.0.model=local-dir:{other}",
    "networks.0.quick_gelu=true",
    "networks.0.resize_mode=squash",
    "networks.0.interpolation=bilinear",
    "networks.0.precision=bf16",
    "networks.0.name=renamed",
    "scorers.batch_size=8",
    "scorers.threads=97",
    "scorers.compile=true",
    "scorers.keep_embeddings=true",
]


@pytest.fixture(scope="module")
def scored_run(local_ray, tmp_path_factory, network, pool):
    from dfn_ray.config import recipe_from

    values = {
        "run_uri": str(tmp_path_factory.mktemp("runs") / "run"),
        "pool": {"uri": [str(pool)], "chunk_rows": 16},
        "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
    }
    filter_pool(recipe_from(values))
    return values


@pytest.mark.parametrize("change", CHANGES)
def test_a_recipe_that_changes_scores_is_refused_on_the_run(scored_run, other_network, change):
    from dfn_ray.config import recipe_from

    changed = recipe_from(scored_run, [change.format(other=other_network)])
    name = change.partition("=")[0].split(".")[-1]
    with pytest.raises(FingerprintError) as told:
        filter_pool(changed)
    expected = {"model": "weights_sha256", "name": "networks.renamed"}.get(name, name)
    assert expected in str(told.value) or name == "precision"


@pytest.mark.parametrize(
    "change",
    [
        "decode.max_pixels=1000",
        "rules.min_image_side=9",
        "networks.0.precision=bf16",
        "pool.chunk_rows=8",
    ],
)
def test_selecting_by_other_scoring_settings_is_refused_by_name(scored_run, tmp_path, change):
    from dfn_ray.config import recipe_from

    changed = recipe_from(scored_run, [change, "select.keep_fraction=0.01"])
    name = change.partition("=")[0].split(".")[-1]
    for verb in (select, lambda recipe: materialize(recipe, out_uri=str(tmp_path / "out"))):
        with pytest.raises(FingerprintError, match=f"{name}: run has"):
            verb(changed)
    select(recipe_from(scored_run, ["decode.cpus=0.5", "scorers.threads=97"]))


@pytest.mark.parametrize(
    "change",
    [
        "execution.chunks_per_part=2",
        "scorers.max_size=2",
        f"scorers.threads={os.cpu_count()}",
        "decode.cpus=0.5",
        "decode.timeout_s=5.0",
        "decode.labels.dfn-role=decode",
        "decode.placement=apart",
        "scorers.resources.slot=1",
        "calibration.samples=5",
    ],
)
def test_a_recipe_that_changes_no_score_goes_on_with_the_run(scored_run, change):
    from dfn_ray.config import recipe_from

    assert filter_pool(recipe_from(scored_run, [change]))["state"] == "final"


def test_threads_are_settled_on_the_driver_where_they_change_scores_and_nowhere_else(scored_run):
    from dfn_ray.config import recipe_from
    from dfn_ray.filtering.scoring.fingerprint import settings_fingerprint

    stored = json.loads((Path(scored_run["run_uri"]) / "run.json").read_text())
    assert stored["recipe"]["scorers"]["threads"] == os.cpu_count()
    assert stored["fingerprint"]["scorers"]["threads"] == os.cpu_count()
    with pytest.raises(FingerprintError, match=r"scorers\.threads: run has \d+, recipe has 77"):
        filter_pool(recipe_from(scored_run, ["scorers.threads=77"]))
    gpu = [
        settings_fingerprint(
            recipe_from(scored_run, ["scorers.device=cuda", "scorers.gpus=1", *more])
        )
        for more in ([], ["scorers.threads=5"])
    ]
    assert gpu[0] == gpu[1]


BREACHES = {
    "a kept sample is gone": (
        "subset",
        lambda t: t.slice(1),
        "is kept by the selection but not in the subset",
    ),
    "a sample is there twice": (
        "subset",
        lambda t: pa.concat_tables([t, t.slice(0, 1)]),
        "is in the subset twice",
    ),
    "an image was changed": (
        "subset",
        lambda t: t.set_column(
            t.schema.get_field_index("image"), "image", pa.array([b"x"] * len(t), pa.large_binary())
        ),
        "image of samples of .* differs from the pool's",
    ),
    "a scores row is gone": ("scores", lambda t: t.slice(1), "its rows are not those"),
    "a status was changed": (
        "scores",
        lambda t: t.set_column(
            t.schema.get_field_index("status"), "status", pa.array(["failed"] * len(t))
        ),
        "its counts are not those",
    ),
    "a score was changed": (
        "scores",
        lambda t: t.set_column(
            t.schema.get_field_index("score_dfn"),
            "score_dfn",
            pa.array([1.0] * len(t), pa.float32()),
        ),
        "the scores yield",
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_verify_names_the_breach(scored_run, tmp_path, breach):
    import shutil

    folder, change, message = BREACHES[breach]
    run = tmp_path / "broken"
    shutil.copytree(scored_run["run_uri"], run)
    path = sorted((run / folder).glob("*.parquet"))[0]
    forge(path, change(pq.read_table(path)))
    with pytest.raises(VerificationError, match=message):
        verify_run(str(run), full=True)


def test_verify_names_missing_chunks_and_a_wrong_uid_list(scored_run, tmp_path):
    import shutil

    run = tmp_path / "broken"
    shutil.copytree(scored_run["run_uri"], run)
    uids = np.load(run / "subset_uids.npy")
    np.save(run / "subset_uids.npy", uids[::-1])
    with pytest.raises(VerificationError, match="not sorted"):
        verify_run(str(run))
    swapped = uids.copy()
    swapped[0] = (0, 0)
    np.save(run / "subset_uids.npy", swapped)
    with pytest.raises(VerificationError, match="not those of the subset"):
        verify_run(str(run))
    np.save(run / "subset_uids.npy", uids)
    verify_run(str(run))
    sorted((run / "scores").glob("*.parquet"))[0].unlink()
    with pytest.raises(DamagedRunError, match="shards are not complete"):
        verify_run(str(run))


@pytest.mark.slow
def test_a_shard_that_kills_its_reader_costs_itself_and_no_more(local_ray, recipe, tmp_path):
    from dfn_ray.testing.lethal import READER_KILLER

    folder = write_pool(tmp_path / "pool", shards=3, samples=10)
    (folder / "00001.tar").rename(folder / f"00001-{READER_KILLER}.tar")
    settings = ("execution.max_bad_shard_fraction=0.5", "execution.rounds=2")
    value = filter_pool(recipe(folder, *settings))
    assert value["counts"] == {"scored": 20}
    faults = {Path(shard).name: fault for shard, (fault, _) in value["faults"].items()}
    assert faults == {f"00001-{READER_KILLER}.tar": "crashes_reader"}


def test_too_many_bad_shards_stop_the_run_as_soon_as_that_is_certain(local_ray, recipe, tmp_path):
    folder = write_pool(tmp_path / "pool", shards=4, samples=10)
    for name in ("00000.tar", "00001.tar"):
        (folder / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(ErrorLimitExceededError, match=r"2 of 4 shards are bad.*allows 25%"):
        filter_pool(recipe(folder, "execution.limits_after_samples=1000000"))


@pytest.mark.slow
def test_a_driver_whose_run_is_taken_over_stops_at_its_next_commit(local_ray, recipe, pool, capsys):
    job = recipe(pool, "execution.chunks_per_part=1", "scorers.max_size=1")
    run = Path(job.run_uri)

    def by_another_driver():
        until(lambda: any(run.glob("scores/part-*.parquet")))
        take_over(open_run(job.run_uri))

    with meanwhile(by_another_driver), pytest.raises(RunTakenOverError, match="taken over by"):
        filter_pool(job)
    assert "round 2" not in capsys.readouterr().err
    committed = len(list(run.glob("scores/part-*.parquet")))
    assert 0 < committed < 24  # of 6 shards of 50 samples, 16 to a chunk
    assert filter_pool(job)["samples"] == 300
