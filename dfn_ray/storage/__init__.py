"""One way to local folders and object stores: read, list, and write so that a file is whole or absent.

Everything goes through fsspec, so `s3://`, `gs://`, `az://`, `hf://` and plain paths behave alike.
Credentials, endpoints and the like come from the environment, as each store's own tools read them.

    store          files below one URI: read, list, delete, write whole or not at all
    files          single files by URI
    walk           what is in folders: one of them, or a whole tree
    filesystems    which fsspec filesystem a URI stands for, and its errors as StorageError
    retries        the one retry policy: attempts, waits, limits on time
    causes         what an exception of a client says: missing, no access, may pass
    remote         files of remote stores; gs:// and az:// with the policy
    http           reading over HTTP
    http_headers   what the headers of answers say
    http_bodies    what comes behind the headers
    local          files of this machine
    hub            hf:// with the policy
    s3             S3 with the policy
    s3_faults      what S3 answers: what passes, what is final, what to say
    environment    what of the environment may go to a cluster's workers
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
from dfn_ray.storage.walk import Folder, files_below, link_to_nothing, scan, walk

__all__ = [
    "READ_AHEAD_BYTES",
    "File",
    "Folder",
    "Store",
    "files_below",
    "filesystem",
    "is_confirmed_missing",
    "is_local",
    "link_to_nothing",
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
