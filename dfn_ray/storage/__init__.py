"""Uniform access to local folders and object stores: read, list, and write whole files.

A written file is complete or absent. Everything goes through fsspec, so `s3://`, `gs://`, `az://`,
`hf://` and plain paths behave alike. Credentials, endpoints and the like come from the environment,
as each store's own tools read them.

    store.py          files below one URI: read, list, delete, write atomically
    files.py          single files by URI
    walk.py           contents of a folder, or of a whole tree
    filesystems.py    the fsspec filesystem of a URI, and its errors as StorageError
    retries.py        the one retry policy: attempts, waits, time limits
    causes.py         classification of client errors: missing, no access, transient
    remote.py         files of remote stores; gs:// and az:// with the policy
    http.py           reading over HTTP
    http_headers.py   values from response headers
    http_bodies.py    response bodies
    local.py          files of this machine
    hub.py            hf:// with the policy
    s3.py             S3 with the policy
    s3_faults.py      S3's errors: which are retried, which are final, their messages
    exclusive.py      renaming local files to free names, locking and syncing them
    environment.py    environment variables that are passed on to a cluster's workers
"""

from dfn_ray.storage.environment import shared_environment
from dfn_ray.storage.files import (
    is_confirmed_missing,
    open_uri,
    read_uri,
    stat,
    version,
    version_of,
)
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES, filesystem, is_local
from dfn_ray.storage.store import File, Store, plain_etag
from dfn_ray.storage.walk import Folder, files_below, first_dangling_link, scan, walk

__all__ = [
    "READ_AHEAD_BYTES",
    "File",
    "Folder",
    "Store",
    "files_below",
    "filesystem",
    "first_dangling_link",
    "is_confirmed_missing",
    "is_local",
    "open_uri",
    "plain_etag",
    "read_uri",
    "scan",
    "shared_environment",
    "stat",
    "version",
    "version_of",
    "walk",
]
