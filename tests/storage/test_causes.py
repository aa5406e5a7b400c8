"""Classification of client errors, raised as the clients raise them."""

from __future__ import annotations

import errno
import json
import socket

import pytest

from dfn_ray.errors import InputError, MissingFileError, StorageAccessError, StorageError
from dfn_ray.storage import Store, is_confirmed_missing, open_uri
from dfn_ray.storage.filesystems import storage_errors
from dfn_ray.storage.remote import RetryingFilesystem


def of_client(name, module, message="no", **attributes):
    """An exception with a client's own class."""
    kind = type(name, (Exception,), {"__module__": module})
    error = kind(message)
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


def raised_from(error, cause):
    error.__cause__ = cause
    return error


GONE = "The specified bucket does not exist."
AZURE = "azure.core.exceptions"
CASES = [
    # fsspec and the hub's client: FileNotFoundError from something else
    (raised_from(FileNotFoundError("x"), of_client("E", "aiohttp", status=503)), StorageError),
    (raised_from(FileNotFoundError("x"), of_client("E", "aiohttp", status=429)), StorageError),
    (raised_from(FileNotFoundError("x"), of_client("E", "aiohttp", status=404)), MissingFileError),
    (raised_from(FileNotFoundError(), of_client("E", "aiohttp", status=403)), StorageAccessError),
    (raised_from(FileNotFoundError("x"), ConnectionRefusedError()), StorageError),
    (raised_from(FileNotFoundError("x"), socket.gaierror(-2, "no such host")), StorageError),
    (raised_from(FileNotFoundError("x"), TimeoutError()), StorageError),
    (of_client("ClientPayloadError", "aiohttp.client_exceptions"), StorageError),
    (of_client("ConnectError", "httpx"), StorageError),
    (raised_from(RuntimeError("x"), of_client("ReadTimeout", "httpx2")), StorageError),
    # Google's and Azure's
    (of_client("HttpError", "gcsfs.retry", code=503), StorageError),
    (of_client("HttpError", "gcsfs.retry", code=401), StorageAccessError),
    (OSError("Forbidden: bucket/x"), StorageAccessError),
    (of_client("HttpError", "gcsfs.retry", GONE, code=404), StorageAccessError),
    (of_client("DefaultCredentialsError", "google.auth.exceptions"), StorageAccessError),
    (of_client("HttpResponseError", AZURE, status_code=500), StorageError),
    (of_client("ResourceNotFoundError", AZURE, status_code=404), MissingFileError),
    (
        of_client("NotFound", AZURE, status_code=404, error_code="ContainerNotFound"),
        StorageAccessError,
    ),
    # disks
    (FileNotFoundError(errno.ENOENT, "x"), MissingFileError),
    (OSError(errno.EIO, "Input/output error"), StorageError),
    (OSError(errno.ESTALE, "Stale file handle"), StorageError),
    (OSError(errno.ENOSPC, "No space left on device"), StorageError),
    (PermissionError(errno.EACCES, "x"), StorageAccessError),
]  # fmt: skip


@pytest.mark.parametrize(("error", "expected"), CASES, ids=[repr(case[0]) for case in CASES])
def test_an_error_is_classified_by_its_whole_chain(error, expected):
    with pytest.raises(StorageError) as failure, storage_errors("gs://b/x", "read"):
        raise error
    assert type(failure.value) is expected


@pytest.mark.parametrize(
    "error", [MemoryError(), ImportError("x"), KeyError("x"), TypeError("x"), InputError("x")]
)
def test_errors_unrelated_to_a_store_pass_unchanged(error):
    with pytest.raises(type(error)) as failure, storage_errors("gs://b/x", "read"):
        raise error
    assert failure.value is error


def test_an_error_that_was_being_handled_before_is_no_cause():
    try:
        raise ConnectionResetError
    except ConnectionResetError:
        with pytest.raises(MissingFileError):
            open_uri("/no/such/file")


class Flaky:
    """A client's filesystem that fails a number of requests."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def ls(self, path, detail=True):
        self.calls += 1
        if self.errors:
            raise self.errors.pop()
        return [path]

    find = info = cat_file = exists = ls


@pytest.mark.parametrize("request_name", ["ls", "find", "info", "cat_file", "exists"])
def test_requests_of_clients_are_tried_again_while_the_fault_may_pass(quick, request_name):
    busy = [of_client("HttpError", "gcsfs.retry", code=503), json.JSONDecodeError("x", "x", 0)]
    flaky = Flaky(*busy)
    assert getattr(RetryingFilesystem(flaky, "gs"), request_name)("b") == ["b"]
    assert flaky.calls == 3
    for error, calls in [
        (FileNotFoundError("x"), 1),
        (ValueError("need an account"), 1),
        (of_client("HttpError", "gcsfs.retry", code=403), quick.doubtful_attempts),
        (of_client("HttpError", "gcsfs.retry", code=503), quick.attempts),
    ]:
        flaky = Flaky(*[error] * 9)
        with pytest.raises(StorageError), storage_errors("gs://b", "list"):
            getattr(RetryingFilesystem(flaky, "gs"), request_name)("b")
        assert flaky.calls == calls


def test_a_request_that_does_not_come_back_is_given_up(quick, monkeypatch):
    from dataclasses import replace
    from threading import Event

    policy = replace(quick, attempts=2, attempt_s=0.05)
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", policy)
    never = Event()
    flaky = Flaky()
    flaky.info = lambda path: never.wait()
    with pytest.raises(StorageError, match="failed 2 times"), storage_errors("gs://b", "access"):
        RetryingFilesystem(flaky, "gs").info("b")
    never.set()


def test_a_local_file_is_missing_for_sure_only_where_its_folder_still_lists(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.tar").write_bytes(b"1")
    assert is_confirmed_missing(f"{tmp_path}/pool/b.tar")
    assert not is_confirmed_missing(f"{tmp_path}/pool/a.tar")
    assert not is_confirmed_missing(f"{tmp_path}/unmounted/b.tar")
    assert not is_confirmed_missing(f"{tmp_path}/pool/a.tar/b.tar")


def test_a_file_below_a_file_does_not_exist(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert not Store(f"{tmp_path}/a").exists("run.json")
