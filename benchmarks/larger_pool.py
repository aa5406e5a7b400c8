r"""The whole pipeline on a larger real pool from package registries.

    python benchmarks/larger_pool.py PACKAGES OUT

16,000 pairs that are too large or not free to ship: six artists' emoji, half of their captions
damaged as in the demo's pool, and openclipart with its authors' titles, which are as noisy as the
web. The filtering network is trained on the demo's clean pairs (four other artists) and evaluated
on the demo's held-out artist. PACKAGES contains:

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-apple@16.0.0 \
        emoji-datasource-facebook@16.0.0 emojibase-data@16.0.3 @iconify-json/noto-v1@1.2.5 \
        @iconify-json/emojione-v1@1.2.3 @iconify-json/openmoji@1.2.29
    apt-get download openclipart-png openclipart-svg
    for deb in openclipart-*.deb; do dpkg-deb -x $deb .; done

Writes OUT/pool/*.tar and OUT/truth.parquet (uid, source, kind) unless they exist, then runs
`dfn-ray pipeline`, which resumes an interrupted run. About half an hour on two cores. Needs
`pip install resvg-py`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dfn_ray.config import PipelineRecipe, recipe_from
from dfn_ray.console.tables import grid
from dfn_ray.demo.pipeline_demo import pipeline_demo_values
from dfn_ray.pipeline.pipeline import run_pipeline
from dfn_ray.run import open_run, scan_subset
from tools.demo_data.artists import read_icons
from tools.demo_data.damage import draw_kinds, show_captions
from tools.demo_data.emoji import SIDE, Emoji, open_flat, read_emoji
from tools.demo_data.make_pool import encode
from tools.demo_data.packages import GOOGLE, Package, read_package
from tools.demo_data.tars import write_tar

SEED = 20234
SHARDS = 32
MAX_SIDE_PIXELS = 128
"""Side to which images are reduced, as by img2dataset; images that Pillow rejects are kept
unchanged."""
KEEP_FRACTION = 0.3
"""About half of the emoji are undamaged, and half of the pool is emoji."""
SAMPLES_SEEN = 61_440

DATASOURCES = {
    "google": GOOGLE,
    "apple": Package(
        file="emoji-datasource-apple-16.0.0.tgz",
        sha256="b34d1665e136f163b0d4433318df151895b785186e8c729b2211b43017945075",
    ),
    "facebook": Package(
        file="emoji-datasource-facebook-16.0.0.tgz",
        sha256="017038cf5a4e7fcf03dd9133cbed43d4c281c4b3ce7b927c7160261b92b8821e",
    ),
}
ICON_SETS = {
    "noto_v1": Package(
        file="iconify-json-noto-v1-1.2.5.tgz",
        sha256="2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    ),
    "emojione_v1": Package(
        file="iconify-json-emojione-v1-1.2.3.tgz",
        sha256="6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
    ),
    "openmoji": Package(
        file="iconify-json-openmoji-1.2.29.tgz",
        sha256="03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
}
CLIPART = "openclipart"
_SHARE = "usr/share/openclipart"
_DC = "{http://purl.org/dc/elements/1.1/}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One sample of the pool and the truth about it."""

    source: str
    key: str
    """Its name at the source."""
    kind: str
    """As in the truth of the demo's pool; `web` for openclipart, whose kinds are unknown."""
    image: bytes
    extension: str
    caption: str

    @property
    def uid(self) -> str:
        """A uid that does not reveal the damage."""
        return hashlib.md5(f"{self.source}/{self.key}".encode(), usedforsecurity=False).hexdigest()


def emoji_pairs(packages: Path) -> Iterator[Pair]:
    """Every emoji by each of the six artists, half of each artist's captions damaged."""
    emoji = read_emoji(packages)
    for source, package in DATASOURCES.items():
        files = read_package(packages, package, f"package/img/{source}/{SIDE}/")
        drawn = {e.code: open_flat(files[e.image]) for e in emoji if e.image in files}
        yield from _damaged(source, emoji, drawn)
    for source, package in ICON_SETS.items():
        yield from _damaged(source, emoji, read_icons(packages, package, emoji))


def _damaged(source: str, emoji: list[Emoji], drawn: dict[str, Image.Image]) -> Iterator[Pair]:
    rng = random.Random(f"{SEED} {source}")
    shown = [one for one in emoji if one.code in drawn and one.category != "Flags"]
    kinds = draw_kinds(shown, rng)
    for one, kind, caption in zip(shown, kinds, show_captions(shown, kinds, rng), strict=True):
        yield Pair(
            source=source,
            key=one.code,
            kind=kind,
            image=encode(drawn[one.code], "webp"),
            extension="webp",
            caption=caption,
        )


def clipart_pairs(packages: Path) -> Iterator[Pair]:
    """Yields openclipart's drawings with their titles; those without a title are left out."""
    drawings, pictures = packages / _SHARE / "svg", packages / _SHARE / "png"
    for path in sorted(drawings.rglob("*.svg")):
        name = path.relative_to(drawings).with_suffix("")
        picture, title = pictures / f"{name}.png", _title(path)
        if title and picture.is_file():
            image, extension = _reduced(picture)
            yield Pair(
                source=CLIPART,
                key=str(name),
                kind="web",
                image=image,
                extension=extension,
                caption=title,
            )


def _title(path: Path) -> str | None:
    """The work's own title, not that of its publisher or author."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return None
    work = root.find(".//{*}Work")
    return (work.findtext(f"{_DC}title") or "").strip() or None if work is not None else None


def _reduced(path: Path) -> tuple[bytes, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as opened:
                coloured = opened.convert("RGBA")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return path.read_bytes(), "png"
    coloured.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    white = Image.new("RGBA", coloured.size, "white")
    white.alpha_composite(coloured)
    sink = io.BytesIO()
    white.convert("RGB").save(sink, "webp", quality=80)
    return sink.getvalue(), "webp"


def write_pool(packages: Path, out: Path) -> None:
    """Writes the pairs, shuffled, as WebDataset shards; the truth, written last, marks the end."""
    pairs = [*emoji_pairs(packages), *clipart_pairs(packages)]
    random.Random(SEED).shuffle(pairs)
    for shard in range(SHARDS):
        contents: list[tuple[str, bytes]] = []
        for position, pair in enumerate(pairs[shard::SHARDS]):
            key = f"{shard * 10_000 + position:08}"
            contents += [
                (f"{key}.{pair.extension}", pair.image),
                (f"{key}.txt", pair.caption.encode()),
                (f"{key}.json", json.dumps({"uid": pair.uid, "source": pair.source}).encode()),
            ]
        write_tar(out / "pool" / f"{shard:05}.tar", contents)
    truth = {
        "uid": [pair.uid for pair in pairs],
        "source": [pair.source for pair in pairs],
        "kind": [pair.kind for pair in pairs],
    }
    pq.write_table(pa.table(truth), out / "truth.parquet")


def pipeline_recipe(out: Path) -> PipelineRecipe:
    """`dfn-ray pipeline demo` on this pool: same networks and sets, more samples, a random arm."""
    values: dict[str, Any] = pipeline_demo_values(str(out / "pipeline"))
    values["pool"] = {"uri": [str(out / "pool")], "chunk_rows": 64}
    values["arms"] = ["dfn", "pool", "random"]
    values["filter"]["select"] = {"keep_fraction": KEEP_FRACTION, "of": "scored"}
    values["train"]["samples_seen"] = SAMPLES_SEEN
    return recipe_from(values, kind=PipelineRecipe)


def kept_by_kind(recipe: PipelineRecipe, truth: Path) -> str:
    """Table of the share of each source and kind that the DFN kept."""
    kept = {
        uid
        for _, table in scan_subset(open_run(recipe.uri("filter")), ["uid"])
        for uid in table["uid"].to_pylist()
    }
    counted: dict[tuple[str, str], list[bool]] = {}
    for row in pq.read_table(truth).to_pylist():
        kind = row["kind"] if row["kind"] in ("clean", "web") else "damaged"
        counted.setdefault((row["source"], kind), []).append(row["uid"] in kept)
    rows = [
        (source, kind, f"{len(hits):,}", f"{sum(hits) / len(hits):.1%}")
        for (source, kind), hits in sorted(counted.items())
    ]
    return grid(("source", "captions", "pairs", "kept"), rows, numbers=2)


def main() -> None:
    """Writes the pool unless it exists, runs the pipeline, and prints the kept shares."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("packages", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    truth = given.out / "truth.parquet"
    if not truth.is_file():
        write_pool(given.packages, given.out)
    recipe = pipeline_recipe(given.out)
    run_pipeline(recipe, say=lambda text: print(text, flush=True))
    print("\n" + kept_by_kind(recipe, truth))


if __name__ == "__main__":
    main()
