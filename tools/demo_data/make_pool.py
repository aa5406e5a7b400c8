"""Packs the demo pool: emoji with their names, half of the captions damaged, and truth.parquet.

    python -m tools.demo_data.make_pool --packages DIR --out DIR

`--packages` holds the two packages named in ATTRIBUTION.md under "The pool". The output is a
function of them, of SEED and of Pillow's encoders: pool/*.tar and truth.parquet, byte for byte.
"""

import argparse
import hashlib
import io
import json
import logging
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tools.demo_data.damage import FAULTS, Fault, Kind, break_image, draw_kinds, show_captions
from tools.demo_data.emoji import Emoji, is_near_copy, open_flat, read_emoji
from tools.demo_data.packages import GOOGLE, read_package
from tools.demo_data.tars import write_tar

logger = logging.getLogger(__name__)

Format: TypeAlias = Literal["png", "jpg", "webp"]

SEED = 20231
"""Seed of every draw."""

SHARDS = 8
"""Enough shards for several workers, few enough to inspect."""

FORMATS: dict[Format, int] = {"png": 2, "jpg": 3, "webp": 5}
"""Shares of the formats: a fifth png (palette), three tenths jpg, half webp; so 6 MB are enough."""

TRUTH_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("kind", pa.string()),
        ("fault", pa.string()),
        ("original_caption", pa.string()),
        ("shown_caption", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of the pool and the truth about it."""

    emoji: Emoji
    kind: Kind
    fault: Fault | None
    caption: str
    """The caption shown in the pool."""
    format: Format

    @property
    def source(self) -> str:
        """Package, version and file that the image is from."""
        return f"emoji-datasource-google@16.0.0/img/google/64/{self.emoji.image}"

    @property
    def uid(self) -> str:
        """The md5 of the source, which does not reveal the damage."""
        return hashlib.md5(self.source.encode(), usedforsecurity=False).hexdigest()


def draw_samples(emoji: list[Emoji]) -> list[Sample]:
    """The samples in pool order: shuffled, so that every shard holds every kind."""
    rng = random.Random(SEED)
    shown = [one for one in emoji if not is_near_copy(one)]
    # Broken samples are drawn from the omitted emoji, so that none of the pool's emoji is lost.
    spare = [one for one in emoji if is_near_copy(one) and one.category == "People & Body"]
    rng.shuffle(shown)
    kinds = draw_kinds(shown, rng)
    captions = show_captions(shown, kinds, rng)
    formats = rng.choices(list(FORMATS), weights=list(FORMATS.values()), k=len(shown))
    samples = [
        Sample(emoji=one, kind=kind, fault=None, caption=caption, format=form)
        for one, kind, caption, form in zip(shown, kinds, captions, formats, strict=True)
    ]
    samples += [
        Sample(emoji=one, kind="broken", fault=fault, caption=one.name, format="jpg")
        for one, fault in zip(rng.sample(spare, len(FAULTS)), FAULTS, strict=True)
    ]
    rng.shuffle(samples)
    return samples


def encode(image: Image.Image, form: Format) -> bytes:
    """The image encoded; settings keep a sample near 1.5 KB."""
    out = io.BytesIO()
    match form:
        case "png":
            image.quantize(128).save(out, "png", optimize=True)
        case "jpg":
            image.save(out, "jpeg", quality=80)
        case "webp":
            image.save(out, "webp", quality=80, method=6)
    return out.getvalue()


def members(sample: Sample, key: str, artwork: bytes) -> dict[str, bytes]:
    """The files of one sample by extension, in img2dataset's order."""
    content = encode(open_flat(artwork), sample.format)
    if sample.fault is not None:
        content = break_image(content, sample.fault)
    described = json.dumps(
        {
            "uid": sample.uid,
            "key": key,
            "source": sample.source,
            "caption": sample.caption,
            "original_width": 64,
            "original_height": 64,
        },
        indent=1,
        ensure_ascii=False,
    )
    files = {
        sample.format: content,
        "txt": sample.caption.encode(),
        "json": described.encode(),
    }
    if sample.fault == "missing_caption":
        del files["txt"]
        files["json"] = json.dumps({"uid": sample.uid, "key": key}).encode()
    if sample.fault == "broken_json":
        files["json"] = files["json"][: len(files["json"]) // 2]
    return files


def write_pool(samples: list[Sample], artwork_by_name: dict[str, bytes], out: Path) -> None:
    """Writes pool/*.tar and truth.parquet, the same bytes every time."""
    truth: list[dict[str, str | None]] = []
    for number in range(SHARDS):
        shard = f"{number:05}.tar"
        contents: list[tuple[str, bytes]] = []
        for position, sample in enumerate(samples[number::SHARDS]):
            key = f"{number * 1000 + position:08}"  # img2dataset's form for shards of < 1000
            files = members(sample, key, artwork_by_name[sample.emoji.image])
            contents += [(f"{key}.{extension}", content) for extension, content in files.items()]
            truth.append(
                {
                    "uid": sample.uid,
                    "shard": shard,
                    "key": key,
                    "kind": sample.kind,
                    "fault": sample.fault,
                    "original_caption": sample.emoji.name,
                    "shown_caption": files["txt"].decode() if "txt" in files else None,
                }
            )
        write_tar(out / "pool" / shard, contents)
    table = pa.Table.from_pylist(truth, schema=TRUTH_SCHEMA)
    pq.write_table(table, out / "truth.parquet", compression="zstd")


def main() -> None:
    """Packs the pool named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Packs the demo pool.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of the packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    samples = draw_samples(read_emoji(arguments.packages))
    artwork = read_package(arguments.packages, GOOGLE, "package/img/google/64/")
    write_pool(samples, artwork, arguments.out)
    size = sum(path.stat().st_size for path in (arguments.out / "pool").glob("*.tar"))
    kinds = Counter(sample.kind for sample in samples)
    logger.info("%d samples, %.2f MB, %s", len(samples), size / 1e6, dict(kinds.most_common()))


if __name__ == "__main__":
    main()
