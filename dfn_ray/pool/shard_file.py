"""The opened file of a shard: failures of the store are kept apart from damage of the content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from dfn_ray.errors import DfnRayError, MissingFileError, ShardChangedError, StorageError
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.schema import ShardFault
from dfn_ray.storage import is_confirmed_missing, open_uri, plain_etag
from dfn_ray.uris import HTTP_SCHEMES, scheme_of

_LISTED_FAULTS = {
    ShardFault.MISSING: "not in the listing of its folder",
    ShardFault.UNFINISHED: "no _stats.json next to it, which img2dataset writes last",
}


@contextmanager
def open_shard(shard: Shard, *, in_order: bool) -> Iterator[ShardFile]:
    """The file of a shard, checked against its listing.

    Raises ShardDamageError if the file is missing, ShardChangedError if it differs from the
    listing, StorageError if the store fails, at opening or while the file is in use, even if the
    caller turned that failure into another exception.
    """
    if shard.fault is not None:
        raise ShardDamageError(shard.fault, _LISTED_FAULTS.get(shard.fault, "by its listing"))
    try:
        plain = open_uri(shard.opened_at, in_order=in_order)
    except MissingFileError as error:
        raise missing_shard(shard.opened_at, error) from error
    with plain:
        file = ShardFile(plain, shard)
        try:
            yield file
        except MemoryError:
            raise
        except Exception as error:
            # The parser's error after a failed read means nothing; the store's first failure does.
            if file.error is not None and file.error is not error:
                raise file.error from error
            if isinstance(error, ShardDamageError):
                require_unchanged(shard)
            raise
        if file.error is not None:
            raise file.error


class ShardFile:
    """An open file that records the store's first failure.

    Reads return all requested bytes or raise.
    """

    closed = False

    def __init__(self, file: IO[bytes], shard: Shard) -> None:
        self._file, self._shard = file, shard
        self.error: DfnRayError | None = None
        """First failure of the store: a StorageError, or ShardChangedError. The content cannot be
        assessed after it."""
        self.size_bytes = self.seek(0, 2)
        """Size at opening."""
        require_listed_size(shard, self.size_bytes)
        _require_version(shard, _version_of(file))
        self.seek(0)

    def read(self, count: int = -1) -> bytes:
        """The next `count` bytes, or the rest for -1; fewer only at the end of the file."""
        try:
            data = self._file.read(count)
        except MemoryError:
            raise
        except Exception as error:
            raise self._record_failure(error) from error
        rest = max(0, self.size_bytes - self._at)
        self._at += len(data)
        if len(data) < (rest if count < 0 else min(count, rest)):
            raise self._record_failure(None)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to a byte; returns its position."""
        try:
            self._at = self._file.seek(offset, whence)
        except Exception as error:
            raise self._record_failure(error) from error
        return self._at

    def tell(self) -> int:
        """The position of the next byte."""
        return self._at

    def require_same_size(self) -> None:
        """Raises ShardChangedError if a local file has grown or shrunk since it was opened."""
        now = self.seek(0, 2)
        if now != self.size_bytes:
            raise changed_shard(
                self._shard, f"it had {self.size_bytes:,} bytes and has {now:,} now"
            )

    def close(self) -> None:
        """No effect: whoever opened the file closes it."""

    def _record_failure(self, error: Exception | None) -> DfnRayError:
        """The failure as an error of dfn_ray; None stands for a premature end."""
        failure = _as_dfn_ray_error(error, self._shard) if error else self._short_read()
        self.error = self.error or failure
        return self.error

    def _short_read(self) -> DfnRayError:
        now = self._file.seek(0, 2)
        if now != self.size_bytes:
            return changed_shard(
                self._shard, f"it had {self.size_bytes:,} bytes and has {now:,} now"
            )
        return StorageError(
            f"{self._shard.uri}: cannot read it: the store returned fewer bytes than requested, at "
            f"byte {self._at:,} of {self.size_bytes:,}"
        )


def missing_shard(uri: str, error: MissingFileError) -> ShardDamageError:
    """The damage of a missing shard. Raises StorageError unless the store confirms its absence."""
    if not is_confirmed_missing(uri):
        raise StorageError(
            f"{uri}: could not be opened, as if it did not exist, but the store does not confirm "
            f"that: {error}; run again"
        ) from error
    if scheme_of(uri) in HTTP_SCHEMES:  # never listed, so it cannot have been deleted since
        return ShardDamageError(ShardFault.MISSING, f"HTTP {_http_status(error)}")
    return ShardDamageError(ShardFault.MISSING, "deleted since it was listed")


def changed_shard(shard: Shard, how: str) -> ShardChangedError:
    """The error for a shard that differs from its listing."""
    return ShardChangedError(
        f"{shard.uri}: differs from the listed shard: {how}; nothing was committed from it after "
        "the change. Restore the listed file, or list the pool again: run again (with "
        "execution.accept_changed_shards = true if a run has listed it)"
    )


def require_listed_size(shard: Shard, found: int) -> None:
    """Raises ShardChangedError if the size differs from the listing; a listed 0 means unknown."""
    if shard.size_bytes and found != shard.size_bytes:
        raise changed_shard(shard, f"listed with {shard.size_bytes:,} bytes, found with {found:,}")


def _require_version(shard: Shard, found: str | None) -> None:
    if (
        shard.version is not None
        and found is not None
        and plain_etag(found) != plain_etag(shard.version)
    ):
        raise changed_shard(shard, f"listed with version {shard.version}, found with {found}")


def _version_of(file: Any) -> str | None:
    """The store's version of an open file's content; None if it has none."""
    details = getattr(file, "details", None)
    found = details.get("ETag") if isinstance(details, dict) else None
    return getattr(file, "version", None) or found


def require_unchanged(shard: Shard) -> None:
    """Raises ShardChangedError if a damaged shard no longer matches its listing.

    Then the damage may come from a read during a write.
    """
    if not shard.size_bytes and shard.version is None:
        return
    try:
        with open_uri(shard.opened_at, in_order=False) as file:
            ShardFile(file, shard)
    except MissingFileError:
        return


def _as_dfn_ray_error(error: Exception, shard: Shard) -> DfnRayError:
    """The exception of a store as an error of dfn_ray."""
    if any(type(cause).__name__ == "FileExpired" for cause in _chain(error)):
        return changed_shard(shard, "its version changed after it was opened")
    if isinstance(error, DfnRayError) and not isinstance(error, MissingFileError):
        return error
    return StorageError(f"{shard.uri}: cannot read it: {error}")


def _http_status(error: BaseException) -> int:
    found = (getattr(cause, "status", None) for cause in _chain(error))
    return next((status for status in found if isinstance(status, int)), 404)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
