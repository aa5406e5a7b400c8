"""Target: folders. A listing yields what `os.walk` finds by the same rules, and all is readable."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.pool import list_shards, listing_table, shards_of_listing
from dfn_ray.schema import Reason, ShardFault
from dfn_ray.testing.sample_pools import TarBuilder
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.shards import read_shard

_SHARDS = (".tar", ".tar", ".tgz", ".tar.gz", ".parquet")
_BESIDE = (".tar.xz", ".TAR", ".txt", ".json", ".tar.zst", "", ".tar.part", "_stats.json.bak")
_HIDDEN = (".Trash-1000", "_temporary", ".snapshot", "_delta_log", ".git")
_IMAGES = (".jpg", ".JPEG", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif", ".jfif", ".jpe")
_NOT_UTF8 = (b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"na\xefve ", b"\x80")
_Tree = dict[bytes, bytes]
"""Content by path below the root; the target of a link."""


def make(rng: Random) -> Case:
    """A folder of shards, or of class folders, under names of every kind."""
    return _shards(rng) if rng.random() < 0.6 else _classes(rng)


def _name(rng: Random) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(_NOT_UTF8) + str(rng.randrange(100)).encode()
    return odd_text.file_name(rng).encode()


def _path(rng: Random, most: int = 3) -> bytes:
    return b"/".join(_name(rng) for _ in range(rng.randint(1, most)))


def _shards(rng: Random) -> Case:
    tree: _Tree = {}
    links: _Tree = {}
    for number in range(rng.randint(1, 6)):
        tree[_path(rng) + rng.choice(_SHARDS).encode()] = _tar(f"caption {number}")
    for _ in range(rng.randint(0, 3)):
        tree[_path(rng) + rng.choice(_BESIDE).encode()] = b"beside"
    for number in range(rng.choice((0, 0, 1, 2))):
        hidden = rng.choice(_HIDDEN).encode()
        tree[hidden + b"/" + _path(rng, 2) + b".tar"] = _tar(f"hidden {number}")
    if rng.random() < 0.3:
        tree[b"run/run.json"], tree[b"run/scores/part-0.parquet"] = b"{}", _tar("of a run")
    if rng.random() < 0.3:
        links[_name(rng) + b"-link"] = rng.choice((b"../outside", b".", b"nowhere"))
    outside = {b"1.tar": _tar("outside")}
    expected = {b"caption %d" % number for number in range(6)} & {
        _caption(content) for content in tree.values()
    }
    if b"../outside" in links.values():
        expected.add(b"outside")
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        root = folder / "pool"
        _write(root, tree, links)
        _write(folder / "outside", outside, {})
        pool = Pool(uri=(str(root),))
        shards = list_shards(pool)
        require(
            len({shard.name for shard in shards}) == len(shards), "two shards have one name", shards
        )
        require(
            len({shard.uri for shard in shards}) == len(shards), "two shards have one URI", shards
        )
        stored = [replace(shard, version=None) for shard in shards]
        require(
            list(shards_of_listing(listing_table(shards))) == stored,
            "a stored listing reads as another",
            shards,
        )
        captions = Counter[bytes]()
        for shard in shards:
            shard.uri.encode()
            shard.name.encode()
            readout = read_shard(shard, pool, Random(seed))
            captions.update(row["text"].encode() for row in readout.rows if row["text"])
        require(set(captions) == expected, "a listing has other shards", set(captions) ^ expected)
        require(max(captions.values()) == 1, "a shard is listed twice", captions)
        _check_named(root)
        return Counter({"shards": len(shards)})

    return Case(
        valid=True, note=f"shards {sorted(tree)} links {links}", files=_numbered(tree), check=check
    )


def _check_named(root: Path) -> None:
    """Folders with a dot in their names are folders in braces too, missing only if absent."""
    _write(root, {b"part.v1/0.tar": _tar("of a part"), b"part.v1/x/1.tar": _tar("below it")}, {})
    found = list_shards(Pool(uri=(f"{root}/{{part.v1,gone.v2}}",)))
    names = [(shard.name, shard.fault) for shard in found]
    due = [("gone.v2", ShardFault.MISSING), ("part.v1/0.tar", None), ("part.v1/x/1.tar", None)]
    require(names == due, "braces over folders list other shards", names)


def _tar(caption: str) -> bytes:
    return TarBuilder().sample("0", image=b"image", caption=caption).getvalue()


def _caption(content: bytes) -> bytes:
    """The caption in a tar of `_tar`."""
    return content[1536 : 1536 + 40].rstrip(b"\0")


def _classes(rng: Random) -> Case:
    """Class folders of images, numbered by sorted order as in torchvision's ImageFolder."""
    tree: _Tree = {}
    links: _Tree = {}
    names = {_name(rng) for _ in range(rng.randint(1, 5))}
    names |= {b"_" + _name(rng)} if rng.random() < 0.2 else set()
    for at, name in enumerate(sorted(names)):
        for number in range(rng.randint(1, 4)):
            tree[name + b"/" + _path(rng, 2) + rng.choice(_IMAGES).encode()] = b"%d %d" % (
                at,
                number,
            )
        if rng.random() < 0.2:
            tree[name + b"/.hidden.jpg"] = b"hidden"
        if rng.random() < 0.2:
            tree[name + b"/notes.txt"] = b"notes"
    outside = {b"0.jpg": b"outside"}
    if rng.random() < 0.3:
        links[b"linked"] = b"../outside"
    label = rng.random() < 0.5
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        root = folder / "classes"
        _write(root, tree, links)
        _write(folder / "outside", outside, {})
        pool = Pool(uri=(str(root),), format="folder", caption="label" if label else "text")
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        expected = {
            content: path.split(b"/")[0] for path, content in tree.items() if content[:1].isdigit()
        }
        expected |= {b"outside": b"linked"} if links else {}
        found: dict[bytes, str] = {}
        try:
            shards = list_shards(pool)
        except InputError:
            require(not expected, "class folders are refused", expected)
            return Counter(["refused"])
        for shard in shards:
            # A class whose name is not UTF-8 has a number, and no caption.
            fails = not (label or _is_utf8(os.fsencode(os.path.basename(shard.opened_at))))
            due = Reason.CAPTION_NOT_UTF8 if fails else None
            for row in read_shard(shard, pool, Random(seed)).rows:
                require(row["reason"] == due, "an image of a class folder has another reason", row)
                if fails:
                    continue
                require(row["image"] not in found, "an image is there twice", row)
                found[row["image"]] = row["text"]
        if not label:
            expected = {image: name for image, name in expected.items() if _is_utf8(name)}
        require(
            set(found) == set(expected),
            "class folders have other images",
            set(found) ^ set(expected),
        )
        for image, caption in found.items():
            name = os.fsdecode(expected[image])
            if label:
                require(
                    caption == str(classes.index(name)),
                    "another class number than ImageFolder's",
                    caption,
                    name,
                )
            elif name.isprintable():
                require(caption == name, "a caption is not its folder's name", caption, name)
        return Counter({"images": len(found)})

    return Case(
        valid=True, note=f"classes {sorted(tree)} links {links}", files=_numbered(tree), check=check
    )


def _is_utf8(name: bytes) -> bool:
    return name.decode(errors="ignore").encode() == name


def _numbered(tree: _Tree) -> dict[str, bytes]:
    """Files that can be written anywhere; their real names are in the note."""
    return {f"{at}": content for at, (_, content) in enumerate(sorted(tree.items()))}


def _write(root: Path, tree: _Tree, links: _Tree) -> None:
    root.mkdir(exist_ok=True)
    for path, content in tree.items():
        target = os.path.join(os.fsencode(root), path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)
        except (
            FileExistsError,
            NotADirectoryError,
            IsADirectoryError,
        ):  # a file where a folder should be
            continue
    for path, target in links.items():
        os.symlink(target, os.path.join(os.fsencode(root), path))


TARGET = Target("folder", 1, make)
