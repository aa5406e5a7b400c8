"""Networks that cannot be downloaded: a mistake ends at once, a failure is tried again."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import huggingface_hub
import open_clip
import pytest

from dfn_ray.config import Network
from dfn_ray.errors import InputError, StorageError
from dfn_ray.network import tokenizer
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.http_server import serve_http

ATTEMPTS, DOUBTFUL_ATTEMPTS = 3, 2
REPOSITORY = Network(model="hf-hub:org/clip")
TAG = Network(model="ViT-B-32", pretrained="openai")


@pytest.fixture(autouse=True)
def quick_policy(monkeypatch):
    policy = Policy(attempts=ATTEMPTS, doubtful_attempts=DOUBTFUL_ATTEMPTS, longest_wait_s=0)
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", policy)


@pytest.fixture
def statuses(monkeypatch, tmp_path) -> Iterator[list[int]]:
    """The statuses by which a hub answers; the last one stays. It has an empty cache here."""
    from huggingface_hub import constants, hf_api

    left: list[int] = []

    def answer(path: str) -> tuple[int, bytes]:
        return (left.pop(0) if len(left) > 1 else left[0]), b"[]"

    with serve_http({}) as server:
        server.answers = answer
        monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # The client's own retries, with their waits.
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield left


def attempts_of(monkeypatch, spec: Network, module, name: str) -> tuple[BaseException, int]:
    """The error of `fetch_network`, and how often it called a function of a module."""
    calls = []
    plain = getattr(module, name)

    def counted(*args, **kwargs):
        calls.append(args)
        return plain(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    with pytest.raises((InputError, StorageError)) as raised:
        fetch_network(spec)
    return raised.value, len(calls)


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (404, InputError, 1),
        (401, InputError, 1),
        (403, InputError, 1),
        (500, StorageError, ATTEMPTS),
        (503, StorageError, ATTEMPTS),
        (429, StorageError, ATTEMPTS),
    ],
)
def test_a_hub_without_the_repository_is_a_mistake_and_a_failing_hub_is_asked_again(
    monkeypatch, statuses, status, kind, attempts
):
    statuses.append(status)
    error, made = attempts_of(monkeypatch, REPOSITORY, huggingface_hub, "list_repo_files")
    assert (type(error), made) == (kind, attempts)
    assert error.exit_code == (2 if kind is InputError else 1)
    assert "cannot download hf-hub:org/clip" in str(error)


def test_a_hub_that_answers_again_is_used(monkeypatch, statuses, network):
    def listed(model_id: str) -> list[str]:
        calls.append(model_id)
        if len(calls) < ATTEMPTS:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        return [path.name for path in network.iterdir()]

    calls: list[str] = []
    monkeypatch.setattr(huggingface_hub, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name: str(network / name))
    there = fetch_network(REPOSITORY)
    here = fetch_network(Network(model=f"local-dir:{network}"))
    assert there.fingerprint() == here.fingerprint()


def test_a_hub_that_cannot_be_reached_is_no_mistake(monkeypatch, statuses):
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    error, made = attempts_of(monkeypatch, REPOSITORY, huggingface_hub, "list_repo_files")
    assert (type(error), made) == (StorageError, ATTEMPTS)


def test_weights_of_a_known_tag_that_cannot_be_downloaded_are_no_mistake(monkeypatch):
    def download(tag):
        try:
            raise socket.gaierror(socket.EAI_AGAIN, "name resolution")
        except OSError as error:
            raise FileNotFoundError(f"Failed to download. Last error: {error}")  # noqa: B904  as open_clip does

    monkeypatch.setattr(open_clip, "download_pretrained", download)
    error, made = attempts_of(monkeypatch, TAG, open_clip, "download_pretrained")
    assert (type(error), made) == (StorageError, DOUBTFUL_ATTEMPTS)
    assert "networks.dfn.pretrained: cannot download 'openai' of ViT-B-32" in str(error)


def test_a_tokenizer_is_a_mistake_if_it_does_not_exist_and_a_failure_if_the_hub_fails(monkeypatch):
    def raising(cause: Exception):
        def load(source: str, **kwargs):
            raise OSError(f"cannot load {source}") from cause

        monkeypatch.setattr(tokenizer, "_hugging_face", load)
        with pytest.raises((InputError, StorageError)) as raised:
            tokenizer.resolve({"text_cfg": {}}, "org/words")
        return type(raised.value)

    assert raising(ConnectionError("reset")) is StorageError
    assert raising(ValueError("not a tokenizer")) is InputError
