"""Versions in a fingerprint: dfn_ray's own, and those of packages that change scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dfn_ray.errors import FingerprintError
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring.fingerprint import scoring_fingerprint
from dfn_ray.network.packed import pack_network
from dfn_ray.network.tokenizer import TokenizerSpec
from dfn_ray.pool import Shard
from dfn_ray.run import fingerprint_digest

TARS, PARQUETS = (Shard("/p/0.tar", "0.tar", 1),), (Shard("/p/0.parquet", "0.parquet", 1),)
HUGGING_FACE = TokenizerSpec(context_length=8, files=(("tokenizer.json", b"{}"),))
TIMM = {"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224"}}

OURS = {
    "reader": "dfn_ray.resolving.embedding_fingerprint.READER_VERSION",
    "decoder": "dfn_ray.resolving.embedding_fingerprint.DECODER_VERSION",
    "tokenizer": "dfn_ray.network.tokenizer.TOKENIZER_VERSION",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Pretends that another version of a package is installed."""

    def found(package: str, version: str) -> None:
        info = tmp_path / "packages" / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    return found


@pytest.fixture
def digests(recipe, network):
    """Returns the digest of a fingerprint for each kind of network and pool."""
    job = recipe("/p")
    clip = pack_network(job.networks[0])
    hugging_face = replace(clip, tokenizer=HUGGING_FACE)
    timm = replace(clip, model_cfg={**clip.model_cfg, **TIMM})

    def found() -> dict[str, str]:
        return {
            name: fingerprint_digest(
                scoring_fingerprint(job, {"dfn": packed.fingerprint()}, shards)
            )
            for name, packed, shards in (
                ("clip", clip, TARS),
                ("clip on parquet", clip, PARQUETS),
                ("hugging face", hugging_face, TARS),
                ("timm", timm, TARS),
            )
        }

    return found


@pytest.mark.parametrize("part", OURS)
def test_a_later_reader_decoder_or_tokenizer_of_ours_makes_another_fingerprint(
    digests, monkeypatch, part
):
    before = digests()
    monkeypatch.setattr(OURS[part], 99)
    after = digests()
    assert {name for name in before if before[name] != after[name]} == set(before)


ALL = {"clip", "clip on parquet", "hugging face", "timm"}


@pytest.mark.parametrize(
    ("package", "changed"),
    [
        ("dfn_ray", ALL),
        ("pyarrow", {"clip on parquet"}),
        ("ftfy", ALL - {"hugging face"}),
        ("regex", ALL - {"hugging face"}),
        ("tokenizers", {"hugging face"}),
        ("sentencepiece", {"hugging face"}),
        ("timm", {"timm"}),
        ("matplotlib", set()),
    ],
)
def test_another_version_of_a_package_makes_another_fingerprint_where_scores_rest_on_it(
    digests, install, package, changed
):
    before = digests()
    install(package, "99.0")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.ray
@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("reader", r"fingerprint\.versions\.reader: run has \d+, recipe has 99"),
        ("decoder", r"fingerprint\.versions\.decoder: run has \d+, recipe has 99"),
        ("tokenizer", r"dfn\.tokenizer\.versions\.tokenizer: run has \d+, recipe has 99"),
        ("dfn_ray", r'fingerprint\.versions\.dfn_ray: run has ".*", recipe has "99\.0"'),
        ("ftfy", r'dfn\.tokenizer\.versions\.ftfy: run has ".*", recipe has "99\.0"'),
    ],
)
def test_a_run_is_not_resumed_by_other_code_and_is_told_what_differs(
    finished, install, monkeypatch, part, where
):
    if part in OURS:
        monkeypatch.setattr(OURS[part], 99)
    else:
        install(part, "99.0")
    files = {path: path.read_bytes() for path in Path(finished.run_uri).rglob("*.*")}
    with pytest.raises(FingerprintError, match=where) as refused:
        filter_pool(finished)
    assert refused.value.exit_code == 2
    assert files == {path: path.read_bytes() for path in Path(finished.run_uri).rglob("*.*")}


@pytest.mark.ray
def test_a_run_is_resumed_under_a_package_that_its_scores_do_not_rest_on(finished, install):
    install("pyarrow", "99.0")  # its pool is of tars
    assert filter_pool(finished)["state"] == "final"
