"""One way to local folders and object stores: read, list, and write so that a file is whole or absent.

Everything goes through fsspec, so `s3://`, `gs://`, `az://`, `hf://` and plain paths behave alike.
Credentials, endpoints and the like come from the environment, as each store's own tools read them;
a URI that holds any is refused.

    store          files below one URI: read, list, delete, write whole or not at all
    files          single files by URI
    walk           what is in folders: one of them, or a whole tree
    filesystems    which fsspec filesystem a URI stands for, and its errors as StorageError
    s3             S3 with one retry policy
    environment    what of the environment may go to a cluster's workers
    s3_faults      that policy: what passes, what is final, and what to tell
"""

from dfn_ray.storage.environment import shared_environment
from dfn_ray.storage.files import open_uri, read_uri, stat, version
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem, is_local
from dfn_ray.storage.store import File, Store
from dfn_ray.storage.walk import Folder, etag, files_below, scan, walk

__all__ = [
    "READ_AHEAD_BYTES",
    "File",
    "Folder",
    "Store",
    "etag",
    "files_below",
    "filesystem",
    "is_local",
    "open_uri",
    "read_uri",
    "scan",
    "shared_environment",
    "stat",
    "version",
    "walk",
]
