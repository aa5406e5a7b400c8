"""The file of a shard, opened: what its store does wrong is told apart from what is wrong with its content."""

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
    ShardFault.UNFINISHED: "no _stats.json beside it, which img2dataset writes last",
}


@contextmanager
def open_shard(shard: Shard, *, in_order: bool) -> Iterator[ShardFile]:
    """The file of a shard, which is the one that was listed.

    Raises ShardDamageError when nothing is there, ShardChangedError when another file is, StorageError when the store fails,
    at opening or at any time while the file is in use, whatever was made of it on the way.
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
            # What a parser makes of a failed read says nothing; the first failure does.
            if file.error is not None and file.error is not error:
                raise file.error from error
            if isinstance(error, ShardDamageError):
                require_unchanged(shard)
            raise
        if file.error is not None:
            raise file.error


class ShardFile:
    """An opened file that remembers the first failure of its store, and gives the bytes asked for or raises."""

    closed = False

    def __init__(self, file: IO[bytes], shard: Shard) -> None:
        self._file, self._shard = file, shard
        self.error: DfnRayError | None = None
        """What the store failed with first: a StorageError, or ShardChangedError. No content can be judged after it."""
        self.size_bytes = self.seek(0, 2)
        """Size when it was opened."""
        require_listed_size(shard, self.size_bytes)
        _require_version(shard, _version_of(file))
        self.seek(0)

    def read(self, count: int = -1) -> bytes:
        """The next `count` bytes, all there are for -1; fewer only at the end of the file."""
        try:
            data = self._file.read(count)
        except MemoryError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        rest = max(0, self.size_bytes - self._at)
        self._at += len(data)
        if len(data) < (rest if count < 0 else min(count, rest)):
            raise self._failed(None)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte; returns which it is."""
        try:
            self._at = self._file.seek(offset, whence)
        except Exception as error:
            raise self._failed(error) from error
        return self._at

    def tell(self) -> int:
        """The byte that comes next."""
        return self._at

    def require_same_size(self) -> None:
        """Raise ShardChangedError when a file of this machine has grown or shrunk since it was opened."""
        now = self.seek(0, 2)
        if now != self.size_bytes:
            raise changed_shard(
                self._shard, f"it had {self.size_bytes:,} bytes and has {now:,} now"
            )

    def close(self) -> None:
        """Left to whoever opened the file."""

    def _failed(self, error: Exception | None) -> DfnRayError:
        """The failure as one of ours; None stands for an end that comes too early."""
        failure = _as_dfn_ray_error(error, self._shard) if error else self._short()
        self.error = self.error or failure
        return self.error

    def _short(self) -> DfnRayError:
        now = self._file.seek(0, 2)
        if now != self.size_bytes:
            return changed_shard(
                self._shard, f"it had {self.size_bytes:,} bytes and has {now:,} now"
            )
        return StorageError(
            f"{self._shard.uri}: cannot read it: the store gave less than it was asked for, at byte {self._at:,} of "
            f"{self.size_bytes:,}"
        )


def missing_shard(uri: str, error: MissingFileError) -> ShardDamageError:
    """The damage of a shard that is not there. Raises StorageError unless its store confirms that it is not."""
    if not is_confirmed_missing(uri):
        raise StorageError(
            f"{uri}: could not be opened, as if it were absent, but nothing confirms that it is: {error}; run again"
        ) from error
    if scheme_of(uri) in HTTP_SCHEMES:  # never listed, so that none can be gone since
        return ShardDamageError(ShardFault.MISSING, f"HTTP {_http_status(error)}")
    return ShardDamageError(ShardFault.MISSING, "gone since it was listed")


def changed_shard(shard: Shard, how: str) -> ShardChangedError:
    """The error for a shard that is not the one that was listed."""
    return ShardChangedError(
        f"{shard.uri}: not the shard that was listed: {how}; nothing was committed of it since. Put the listed one back, "
        "or list the pool anew: run again (with execution.accept_changed_shards = true where a run has listed it)"
    )


def require_listed_size(shard: Shard, found: int) -> None:
    """Raise ShardChangedError when the size is not the listed one; 0 in the listing is no size."""
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
    """The store's version of the content of an opened file, None where it has none."""
    details = getattr(file, "details", None)
    found = details.get("ETag") if isinstance(details, dict) else None
    return getattr(file, "version", None) or found


def require_unchanged(shard: Shard) -> None:
    """Raise ShardChangedError when a damaged shard no longer is what was listed: then the damage may be a torn read."""
    if not shard.size_bytes and shard.version is None:
        return
    try:
        with open_uri(shard.opened_at, in_order=False) as file:
            ShardFile(file, shard)
    except MissingFileError:
        return


def _as_dfn_ray_error(error: Exception, shard: Shard) -> DfnRayError:
    """What a store raised as one of our errors."""
    if any(type(cause).__name__ == "FileExpired" for cause in _chain(error)):
        return changed_shard(shard, "its version is another one since it was opened")
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
