"""Packs the demo's other inputs of `dfn-ray pipeline`: clean training pairs and a held-out artist.

    python -m tools.demo_data.make_pipeline --packages DIR --data DIR --out DIR

`--packages` holds the packages named in ATTRIBUTION.md, `--data` the pool's truth. The output is a
function of them, of SEED and of Pillow's encoders: clean/*.tar and held_out/, byte for byte. Needs
`pip install resvg-py` for the artists who publish SVG.
"""

import argparse
import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from tools.demo_data.artists import ARTISTS, Renderings, read_renderings
from tools.demo_data.captions import describe
from tools.demo_data.emoji import Emoji, is_near_copy, read_emoji
from tools.demo_data.make_pool import Sample, encode
from tools.demo_data.tars import write_tar

logger = logging.getLogger(__name__)

SEED = 20232
"""Seed of the captions and of the order of the clean pairs."""

SHARDS = 8
"""The number of the pool's shards."""

HELD_OUT = "twitter"
"""The artist used in evaluation only, who has drawn every emoji of the pool."""

SOURCE_BY_ARTIST = {
    "fluent_3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "fluent_flat": "@lobehub/fluent-emoji-flat@1.1.0",
    "emojitwo": "@iconify-json/emojione@1.2.3",
    "firefox_os": "@iconify-json/fxemoji@1.2.2",
}
"""Package and version of each artist whose pairs are clean/."""

TEMPLATES = ("{c}",)
"""The class name alone, because the pool's captions are bare names."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One drawing and a correct caption."""

    image: Image.Image
    caption: str
    source: str

    @property
    def uid(self) -> str:
        """The md5 of the source, as in the pool."""
        return hashlib.md5(self.source.encode(), usedforsecurity=False).hexdigest()


def draw_pairs(emoji: list[Emoji], renderings: Renderings) -> list[Pair]:
    """Every drawing of an emoji of the pool by the artists of SOURCE_BY_ARTIST, shuffled."""
    rng = random.Random(SEED)
    pairs: list[Pair] = []
    for image_HWC, row, number in zip(
        renderings.image_NHWC, renderings.emoji_N, renderings.artist_N, strict=True
    ):
        artist, shown = ARTISTS[number], emoji[row]
        if artist == HELD_OUT or is_near_copy(shown):
            continue
        pairs.append(
            Pair(
                image=Image.fromarray(image_HWC),
                caption=describe(shown, rng),
                source=f"{SOURCE_BY_ARTIST[artist]}#{shown.code}",
            )
        )
    rng.shuffle(pairs)
    return pairs


def members(pair: Pair, key: str) -> Iterator[tuple[str, bytes]]:
    """The files of one pair, named and ordered as in the pool."""
    described = {"uid": pair.uid, "key": key, "source": pair.source, "caption": pair.caption}
    yield f"{key}.webp", encode(pair.image, "webp")
    yield f"{key}.txt", pair.caption.encode()
    yield f"{key}.json", json.dumps(described, ensure_ascii=False).encode()


def write_clean(pairs: list[Pair], folder: Path) -> None:
    """Writes the pairs as WebDataset shards with img2dataset's keys."""
    for number in range(SHARDS):
        write_tar(
            folder / f"{number:05}.tar",
            (
                file
                for position, pair in enumerate(pairs[number::SHARDS])
                for file in members(pair, f"{number * 1000 + position:08}")
            ),
        )


def named_truly(emoji: list[Emoji], truth_file: Path) -> list[int]:
    """Rows of the emoji that have their name as caption in the pool, in order of code.

    No other caption of the pool teaches a name, so that any model has to guess on other emoji.
    """
    truth = pq.read_table(truth_file, columns=["uid", "kind"]).to_pylist()
    clean = {row["uid"] for row in truth if row["kind"] == "clean"}
    return [
        row
        for row, one in enumerate(emoji)
        if Sample(emoji=one, kind="clean", fault=None, caption=one.name, format="png").uid in clean
    ]


def write_held_out(
    emoji: list[Emoji], renderings: Renderings, classes: list[int], folder: Path
) -> None:
    """Writes one drawing per class by the held-out artist, in CLIP_benchmark's layout."""
    drawn = renderings.artist_N == ARTISTS.index(HELD_OUT)
    image_by_row = dict(
        zip(renderings.emoji_N[drawn].tolist(), renderings.image_NHWC[drawn], strict=True)
    )
    files: list[tuple[str, bytes]] = []
    for label, row in enumerate(classes):
        files.append((f"{label:06}.webp", encode(Image.fromarray(image_by_row[row]), "webp")))
        files.append((f"{label:06}.cls", str(label).encode()))
    write_tar(folder / "test" / "0.tar", files)
    for name, lines in {
        "test/nshards.txt": ["1"],
        "classnames.txt": [emoji[row].name for row in classes],
        "zeroshot_classification_templates.txt": TEMPLATES,
        "dataset_type.txt": ["classification"],
    }.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def main() -> None:
    """Packs the data named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Packs the clean pairs and the held-out artist.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of the packages")
    parser.add_argument("--data", type=Path, required=True, help="folder of truth.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    emoji = read_emoji(arguments.packages)
    renderings = read_renderings(arguments.packages, emoji)
    pairs = draw_pairs(emoji, renderings)
    classes = named_truly(emoji, arguments.data / "truth.parquet")
    write_clean(pairs, arguments.out / "clean")
    write_held_out(emoji, renderings, classes, arguments.out / "held_out")
    by_source = Counter(pair.source.partition("#")[0] for pair in pairs)
    logger.info("%d clean pairs: %s", len(pairs), dict(by_source.most_common()))
    logger.info("%d held-out drawings, one per class", len(classes))


if __name__ == "__main__":
    main()
