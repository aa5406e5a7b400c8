"""Samples of a class folder: its image files in the order of their names, read in parallel.

`root/<class>/<image files, at any depth>`, as for torchvision's ImageFolder. The caption of a
sample is the name of its class folder, or with `caption = "label"` the index of that folder among
its siblings, sorted and from 0, which is ImageFolder's class number: links and hidden folders
count. Below a class folder, hidden folders and runs are skipped as in other pools. Files that are
not images are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from dfn_ray.config import Pool
from dfn_ray.errors import MissingFileError, StorageError
from dfn_ray.images.formats import IMAGE_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dfn_ray.pool.chunking import OpenChunk, RowSelection
from dfn_ray.pool.listing.folders import Descent, class_names, reject_run
from dfn_ray.pool.listing.patterns import Glob, State, is_hidden
from dfn_ray.pool.listing.remarks import Remark, Remarks
from dfn_ray.pool.members import Role
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import Shard
from dfn_ray.pool.shard_file import missing_shard, require_listed_size
from dfn_ray.schema import Reason, ShardFault
from dfn_ray.storage import File, Folder, read_uri, scan, walk
from dfn_ray.uris import utf8_safe

_EVERYTHING = Glob("**")

_READERS = 16
"""Files read in parallel: on an object store each is a request, and latency dominates."""


def class_folders(root: str, remarks: Remarks) -> list[File]:
    """The class folders in a folder, in the order of their numbers, with the bytes below each.

    Empty if the folder is absent. Raises InputError if it is a run, StorageAccessError if a link in
    it points to nothing.
    """
    names: list[str] = []
    sizes: Counter[str] = Counter()

    def take(folder: Folder, _: State) -> None:
        name = folder.uri[len(root) + 1 :].partition("/")[0]
        sizes[name] += sum(file.size_bytes for file in folder.files.values())
        for special in filter(_is_image, folder.special):
            remarks.add(Remark.SPECIAL_FILE, f"{folder.uri}/{special}")

    descent = Descent(_EVERYTHING, remarks, take, is_file=_is_image)

    def visit(folder: Folder, state: State | None) -> dict[str, State | None]:
        if state is not None:
            return dict(descent.visit(folder, state))
        reject_run(folder)
        names.extend(class_names(folder))
        return dict.fromkeys(folder.folders, _EVERYTHING.start)

    walk(root, visit, None)
    for name in filter(is_hidden, names):
        remarks.add(Remark.HIDDEN_CLASS, f"{root}/{name}")
    return [File(f"{root}/{name}", sizes[name]) for name in names]


def folder_chunks(shard: Shard, pool: Pool, selection: RowSelection) -> Iterator[OpenChunk]:
    """The chunks of a class folder, in order. Only files of selected rows are read.

    Raises StorageError if the parent folder that it was listed in is absent, cannot be listed, or
    contains a dangling link.
    """
    root, _, name = shard.opened_at.rpartition("/")
    parent = scan(root)
    if parent is None:
        raise StorageError(
            f"{utf8_safe(root)}: does not exist, but {shard.name} was listed in it; check that its "
            "disk is mounted"
        )
    beside = class_names(parent)
    if name not in beside:
        raise missing_shard(shard.opened_at, MissingFileError(f"{shard.uri}: no such folder"))
    rest_bytes = shard.size_bytes  # of all files, including those that are skipped
    text = str(beside.index(name)) if pool.caption == "label" else name
    caption = text.encode("utf-8", "surrogateescape")
    chunk, files = OpenChunk(0), list[tuple[Draft, File]]()
    images, found_bytes = _images(shard.opened_at)
    require_listed_size(shard, found_bytes)
    for row, (file, is_there) in enumerate(images):
        if chunk.is_full(pool):
            _read(chunk, files, pool, selection)
            rest_bytes -= chunk.bytes_read
            yield chunk
            chunk, files = OpenChunk(row), []
        draft = Draft(row=row, key=utf8_safe(file.uri[len(shard.opened_at) + 1 :]))
        draft.register(Role.CAPTION, len(caption), pool)
        draft.fill(Role.CAPTION, caption)
        if is_there:
            files.append((draft, file))
        chunk.add(draft)
        chunk.held_bytes += file.size_bytes
        chunk.bytes_read += file.size_bytes
    _read(chunk, files, pool, selection)
    chunk.last = True
    chunk.bytes_read = max(chunk.bytes_read, rest_bytes)
    if not chunk.drafts:
        chunk.fault, chunk.detail = ShardFault.EMPTY, "it contains no image"
    yield chunk


def _images(uri: str) -> tuple[list[tuple[File, bool]], int]:
    """The image files below a class folder by name, and the total bytes of all files there.

    Dangling links are marked False.
    """
    images: list[tuple[File, bool]] = []
    sizes: list[int] = []

    def take(folder: Folder, _: State) -> None:
        sizes.extend(file.size_bytes for file in folder.files.values())
        images.extend((file, True) for name, file in folder.files.items() if _is_image(name))
        absent = filter(_is_image, folder.dangling)
        images.extend((File(f"{folder.uri}/{name}", 0), False) for name in absent)

    descent = Descent(_EVERYTHING, Remarks(), take, is_file=_is_image)
    walk(uri, descent.visit, _EVERYTHING.start)
    return sorted(images, key=lambda image: image[0].uri), sum(sizes)


def _read(
    chunk: OpenChunk, files: list[tuple[Draft, File]], pool: Pool, selection: RowSelection
) -> None:
    """Registers the files of a chunk, and reads the selected ones."""
    reading = [
        (draft, file)
        for draft, file in files
        if draft.register(Role.IMAGE, file.size_bytes, pool)
        and selection.includes(chunk.first_row, draft.row)
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        for (draft, _), data in zip(reading, readers.map(_bytes_of, reading), strict=True):
            if data is None:
                draft.fault = Reason.MISSING_IMAGE
            else:
                draft.fill(Role.IMAGE, data)


def _bytes_of(item: tuple[Draft, File]) -> bytes | None:
    """The bytes of a file; None if it was deleted since the listing."""
    try:
        return read_uri(item[1].uri)
    except MissingFileError as error:
        missing_shard(item[1].uri, error)  # raises unless the store confirms it
        return None


def _is_image(name: str) -> bool:
    ending = name.rpartition(".")[2].lower()
    return not name.startswith(".") and ending in IMAGE_EXTENSIONS | UNSUPPORTED_EXTENSIONS
