"""hf:// with the one retry policy: listed by the hub's own client, read over HTTP as web servers are.

The client tries a range six times with waits of its own, and hands on an answer that is too short.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers

from dfn_ray.storage.http import Http
from dfn_ray.storage.remote import RemoteFile, Retried


class Hub(Retried):
    """The hub's filesystem, its files opened by URL."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """The file at a path."""
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
        there = self.resolve_path(path)
        if not hasattr(there, "repo_id"):  # of a bucket
            return self.request(self.inner.url)(path)
        # Not the client's `url`, which lists the folder around a file to see whether it is one.
        return hf_hub_url(
            there.repo_id,
            there.path_in_repo,
            repo_type=there.repo_type,
            revision=there.revision,
            endpoint=self.inner.endpoint,
        )
