"""Samples of a class folder: its image files in the order of their names, read side by side.

`root/<class>/<image files, at any depth>`, as torchvision's ImageFolder has it. The caption of a sample is the
name of its class folder, or with `caption = "label"` the folder's place among the folders beside it, in sorted
order and from 0, which is ImageFolder's class number. Files that are no images play no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from dfn_ray.config import Pool
from dfn_ray.errors import MissingFileError
from dfn_ray.image_formats import IMAGE_EXTENSIONS, UNSUPPORTED_EXTENSIONS
from dfn_ray.pool.chunking import Group, Wanted, closing
from dfn_ray.pool.members import Role
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import Shard, ShardDamage
from dfn_ray.schema import Reason, ShardFault
from dfn_ray.storage import File, files_below, folders_in, read_uri

_READERS = 16
"""Files read side by side: on an object store each is a request, and latency dominates."""


def folder_groups(shard: Shard, pool: Pool, wanted: Wanted) -> Iterator[Group]:
    """The chunks of a class folder, in order. Only files of wanted rows are read."""
    root, _, name = shard.uri.rpartition("/")
    beside = folders_in(root)
    if name not in beside:
        yield closing(ShardDamage(ShardFault.MISSING, "gone since it was listed"))
        return
    rest_bytes = shard.size_bytes  # of all files, so that what is passed by counts as well
    caption = (str(beside.index(name)) if pool.caption == "label" else name).encode()
    group, files = Group(0), list[tuple[Draft, File]]()
    images = (file for file in files_below(shard.uri) if _is_image(file.name))
    for row, file in enumerate(images):
        if group.is_full(pool):
            _read(group, files, pool, wanted)
            rest_bytes -= group.bytes_read
            yield group
            group, files = Group(row), []
        draft = Draft(row=row, key=file.uri[len(shard.uri) + 1 :])
        draft.note(Role.CAPTION, len(caption), pool)
        draft.fill(Role.CAPTION, caption)
        files.append((draft, file))
        group.drafts.append(draft)
        group.image_bytes += file.size_bytes
        group.bytes_read += file.size_bytes
    _read(group, files, pool, wanted)
    group.last = True
    group.bytes_read = max(group.bytes_read, rest_bytes)
    if not group.drafts:
        group.fault, group.detail = ShardFault.EMPTY, "no image in it"
    yield group


def _read(group: Group, files: list[tuple[Draft, File]], pool: Pool, wanted: Wanted) -> None:
    """Take note of the files of a chunk, and read those that are wanted."""
    reading = [
        (draft, file)
        for draft, file in files
        if draft.note(Role.IMAGE, file.size_bytes, pool) and wanted.has(group.first_row, draft.row)
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        for (draft, _), data in zip(reading, readers.map(_bytes_of, reading), strict=True):
            if data is None:
                draft.fault = Reason.MISSING_IMAGE
            else:
                draft.fill(Role.IMAGE, data)


def _bytes_of(item: tuple[Draft, File]) -> bytes | None:
    """The bytes of a file, None when it is gone since it was listed."""
    try:
        return read_uri(item[1].uri)
    except MissingFileError:
        return None


def _is_image(name: str) -> bool:
    ending = name.rpartition(".")[2].lower()
    return not name.startswith(".") and ending in IMAGE_EXTENSIONS | UNSUPPORTED_EXTENSIONS
