"""One way to local folders and object stores: read, list, and write so that a file is whole or absent.

Everything goes through fsspec, so `s3://`, `gs://`, `az://`, `hf://` and plain paths behave alike.
Credentials, endpoints and the like come from the environment, as each store's own tools read them;
a URI that holds any is refused.

    store          files below one URI: read, list, delete, write whole or not at all
    files          single files and folders by URI
    filesystems    which fsspec filesystem a URI stands for, and its errors as StorageError
    s3             S3 with one retry policy
    environment    what of the environment may go to a cluster's workers
    s3_faults      that policy: what passes, what is final, and what to tell
"""

from dfn_ray.storage.environment import shared_environment
from dfn_ray.storage.files import (
    files_below,
    folders_in,
    is_confirmed_missing,
    open_uri,
    read_uri,
    stat,
    version,
)
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem
from dfn_ray.storage.store import File, Store

__all__ = [
    "READ_AHEAD_BYTES",
    "File",
    "Store",
    "files_below",
    "filesystem",
    "folders_in",
    "is_confirmed_missing",
    "open_uri",
    "read_uri",
    "shared_environment",
    "stat",
    "version",
]
