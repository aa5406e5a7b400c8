"""An unreachable Ray: one sentence, exit code 2, within seconds, and nothing written."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from ray._private import node

from dfn_ray.cli import run
from dfn_ray.config import recipe_from
from dfn_ray.errors import InputError
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.subset.uid_list_subset import materialize_listed
from dfn_ray.on_ray import ray_address as module
from dfn_ray.on_ray import session
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.session import connect
from dfn_ray.testing.sample_pools import uid_of, write_pool

FILTER = '[pool]\nuri = "{0}/pool"\n[[networks]]\nmodel = "ViT-B-32"\nrandom_weights_seed = 0\n'
TRAIN = (
    'samples_seen = 8\nbatch_size = 4\n[model]\nmodel = "ViT-B-32"\nrandom_weights_seed = 0\n'
    '[[sources]]\npool = {{uri = "{0}/pool"}}\n'
)
EVALUATE = (
    '[network]\nmodel = "ViT-B-32"\nrandom_weights_seed = 0\n'
    '[[sets]]\nname = "a"\npool = {{uri = "{0}/pool"}}\n'
)


@pytest.fixture(autouse=True)
def _not_connected(monkeypatch):
    """Simulates a new process, whatever other tests have started."""
    if "ray" in sys.modules:
        monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


@contextmanager
def server(answer: bytes | None):
    """The address of a server that accepts one connection and sends `answer`; None: no answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(100)
                if answer is None:
                    done.wait(20)
                else:
                    connection.sendall(answer)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        done.set()
        thread.join()


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("verb", ["filter", "score", "train", "evaluate", "materialize"])
def test_every_verb_ends_with_2_where_nobody_answers_and_has_written_nothing(
    tmp_path, monkeypatch, capsys, verb
):
    address = free_address()
    monkeypatch.setenv("RAY_ADDRESS", address)
    text = {"train": TRAIN, "evaluate": EVALUATE}.get(verb, FILTER)
    (tmp_path / "recipe.toml").write_text(f'run_uri = "{tmp_path}/run"\n{text.format(tmp_path)}')
    start = time.monotonic()
    assert run([verb, str(tmp_path / "recipe.toml")]) == 2
    assert time.monotonic() - start < 15
    said = capsys.readouterr().err
    assert f"RAY_ADDRESS={address}: no Ray cluster answers there" in said
    assert "unset RAY_ADDRESS for a local Ray" in said
    assert not (tmp_path / "run").exists()


def test_the_library_writes_nothing_either_where_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", free_address())
    uids = [(int(uid_of(n)[:16], 16), int(uid_of(n)[16:], 16)) for n in range(2)]
    np.save(tmp_path / "uids.npy", np.sort(np.array(uids, dtype="u8,u8")))
    pool = write_pool(tmp_path / "pool", shards=1, samples=2)
    values = {
        "run_uri": str(tmp_path / "run"),
        "pool": {"uri": str(pool)},
        "networks": [{"model": "ViT-B-32", "random_weights_seed": 0}],
    }
    for verb in (
        lambda: filter_pool(recipe_from(values)),
        lambda: materialize_listed(
            recipe_from(values).pool, str(tmp_path / "uids.npy"), str(tmp_path / "run")
        ),
    ):
        with pytest.raises(InputError, match="no Ray cluster answers there"):
            verb()
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("no-such-head.invalid:6379", "no Ray cluster answers there"),
        ("ray://no-such-head.invalid:10001", "no Ray cluster answers there"),
        (f"{'x' * 70}.invalid:6379", "no Ray cluster answers there"),
        ("head", r"need HOST:PORT of a Ray head"),
        ("head:port", r"need HOST:PORT of a Ray head"),
        ("head:99999", r"need HOST:PORT of a Ray head"),
        ("http://head:8265", r"need HOST:PORT of a Ray head"),
        (":6379", r"need HOST:PORT of a Ray head"),
    ],
)
def test_addresses_that_name_nothing_are_wrong_input(monkeypatch, address, message):
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(InputError, match=message):
        check_ray_reachable()
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a Ray head, it responded with b'HTTP/1.1 400"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not a Ray head"),
        (b"-E", "not a Ray head"),
        (b"", "not a Ray head"),
        (None, "sent no response for 1 s"),
    ],
)
def test_a_port_of_something_else_is_wrong_input(monkeypatch, answer, message):
    monkeypatch.setattr(module, "ANSWER_S", 1.0)
    with server(answer) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=message):
            check_ray_reachable()


def test_a_stale_note_of_ray_start_is_wrong_input_with_its_file(monkeypatch, tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(free_address())
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for address in ("", "auto"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=r"no Ray cluster answers there") as caught:
            check_ray_reachable()
        assert str(tmp_path / "ray/ray_current_cluster") in str(caught.value)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_wrong_input_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, name
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "x" * 85)
    (tmp_path / "recipe.toml").write_text(f'run_uri = "{tmp_path}/run"\n{FILTER.format(tmp_path)}')
    assert run(["filter", str(tmp_path / "recipe.toml")]) == 2
    said = capsys.readouterr().err
    assert f"{name}=/tmp/xxx" in said
    assert "set RAY_TMPDIR to a short path" in said
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # which is the way out
    check_ray_reachable()


def test_what_fits_is_what_ray_itself_takes(monkeypatch):
    from ray._private.utils import validate_socket_filepath

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    session = f"ray/session_2026-11-26_14-27-32_123456_{os.getpid()}/sockets/plasma_store"

    def passes(check, *arguments) -> bool:
        try:
            check(*arguments)
        except (InputError, OSError):
            return False
        return True

    for length in range(30, 70):
        folder = "/" + "x" * (length - 1)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        rays_own = passes(validate_socket_filepath, f"{folder}/{session}")
        assert passes(check_ray_reachable) == rays_own, length


@pytest.mark.ray
def test_a_cluster_that_is_there_is_let_through(local_ray, monkeypatch):
    import ray

    monkeypatch.undo()  # this process is connected, and may say so
    code = "from dfn_ray.on_ray.ray_address import check_ray_reachable; check_ray_reachable()"
    address = ray.get_runtime_context().gcs_address
    for name in (address, f"127.0.0.1:{address.rpartition(':')[2]}"):
        environment = {**os.environ, "RAY_ADDRESS": name}
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        assert time.monotonic() - start < 10


def test_a_ray_that_takes_too_long_to_start_is_an_error_in_a_sentence(monkeypatch):
    def start(**_):
        raise Exception(message)

    message = "The current node timed out during startup. This could happen because ..."
    monkeypatch.setattr("dfn_ray.on_ray.session.check_ray_reachable", lambda: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", start)
    with pytest.raises(InputError, match=r"^Ray did not start: .*Run the same command again$"):
        connect()
    message = "anything else"
    with pytest.raises(Exception, match=r"^anything else$"):
        connect()


def test_the_message_of_a_slow_start_is_still_rays():
    assert session._STARTUP in inspect.getsource(node)
