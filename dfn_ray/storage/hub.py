"""hf:// with the one retry policy: listed by the hub's own client, read over HTTP like web servers.

The client itself tries a range six times with its own waits, and returns responses that are too
short.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers

from dfn_ray.storage.http import Http
from dfn_ray.storage.remote import RemoteFile, RetryingFilesystem


class Hub(RetryingFilesystem):
    """The hub's filesystem; its files are opened by URL."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Opens the file at a path."""
        if mode != "rb":
            return self.inner.open(path, mode, **options)
        uri = self.inner.unstrip_protocol(path)
        headers = build_hf_headers(token=self.inner.token)
        return Http().open_url(uri, self._url(path), headers, options)

    def cat_file(self, path: str) -> bytes:
        """All bytes of a file."""
        file: RemoteFile
        with self.open(path, cache_type="none") as file:
            return file.read()

    def _url(self, path: str) -> str:
        resolved = self.resolve_path(path)
        if not hasattr(resolved, "repo_id"):  # a file of a bucket
            return self.request(self.inner.url)(path)
        # Not the client's `url`, which lists the enclosing folder to check that the path is a file.
        return hf_hub_url(
            resolved.repo_id,
            resolved.path_in_repo,
            repo_type=resolved.repo_type,
            revision=resolved.revision,
            endpoint=self.inner.endpoint,
        )
