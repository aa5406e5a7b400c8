"""Failed downloads of networks: a mistake that the user can fix, or a failure that may pass."""

from __future__ import annotations

from collections.abc import Iterator

from dfn_ray.errors import DfnRayError, InputError, StorageError

_MISTAKES = frozenset(
    {
        "DisabledRepoError", "EntryNotFoundError", "HFValidationError", "RemoteEntryNotFoundError",
        "RepositoryNotFoundError", "RevisionNotFoundError",
    }
)  # fmt: skip
"""The hub's exceptions for a name that it does not know."""
_ABSENT = (404, 410)
_REFUSALS = frozenset({"GatedRepoError", "OfflineModeIsEnabled"})
"""The hub's exceptions for terms that are not accepted, and for a setting against downloads."""
_REFUSED = (401, 403)
_NETWORK = frozenset(
    {
        "aiohttp", "http", "httpcore", "httpx", "httpx2", "huggingface_hub", "requests", "socket",
        "ssl", "urllib", "urllib3",
    }
)  # fmt: skip
"""Packages of clients."""


def download_error(
    message: str,
    error: BaseException,
    *,
    otherwise: type[DfnRayError] = StorageError,
    is_known: bool = False,
) -> DfnRayError:
    """The error to raise for a download that failed with `error`.

    InputError if the server does not know the name or denies access, StorageError if it fails or
    cannot be reached, `otherwise` for an error that does not come from a server. `is_known`: the
    name is right, so that an absent file is a failure of the server.
    """
    chain = list(_causes(error))
    names = {type(link).__name__ for link in chain}
    statuses = {status for link in chain if (status := _status(link)) is not None}
    refused = names & _REFUSALS or statuses.intersection(_REFUSED)
    if refused or (not is_known and (names & _MISTAKES or statuses.intersection(_ABSENT))):
        return InputError(message)
    return StorageError(message) if any(map(_is_of_network, chain)) else otherwise(message)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception and its causes, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The response status that a client's exception holds; None without a response."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    status = getattr(error, "status", None) if status is None else status  # urllib's
    return status if isinstance(status, int) else None


def _is_of_network(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return package in _NETWORK or isinstance(error, TimeoutError | ConnectionError)
