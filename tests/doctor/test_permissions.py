from __future__ import annotations

from dataclasses import replace

from dfn_ray.doctor.permissions import PROBE, check_permissions, probing
from dfn_ray.storage import Store
from dfn_ray.testing.s3_proxy import Fault, Faults, fault_proxy
from dfn_ray.testing.s3_servers import serve_s3


def test_all_rights_are_checked_and_nothing_is_left_behind(s3, tmp_path):
    new = tmp_path / "not" / "yet"
    for uri in ("s3://runs/rights/run", str(new)):
        with probing(uri) as probe:
            assert Store(uri).list() != []
        assert probe.problems == []
        assert Store(uri).list() == []
    assert list(tmp_path.iterdir()) == []
    assert not list((s3.folder / "runs").rglob(f"{PROBE}*"))


def test_a_folder_with_files_stays_as_it_was(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert check_permissions(str(tmp_path)) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_read_only_bucket_is_reported(s3, seen_by_driver):
    with fault_proxy(s3.endpoint) as proxy:
        proxy.faults = Faults(share=1.0, kinds=(Fault.DENIED,), operations=("PUT", "POST"))
        seen_by_driver(replace(s3, endpoint=proxy.endpoint))
        (problem,) = check_permissions("s3://runs/read-only/run")
    assert "no permission for put_object" in problem
    assert "s3://runs/read-only/run" in problem


def test_a_key_without_rights_is_reported_for_every_step_and_never_shown(tmp_path, seen_by_driver):
    with serve_s3(tmp_path, ["runs"]) as server:
        seen_by_driver(replace(server, secret="not-the-secret"))
        problems = check_permissions("s3://runs/run")
    assert len(problems) == 2
    assert "write" in problems[0]
    assert "list" in problems[1]
    assert "not-the-secret" not in "".join(problems)


def test_an_absent_bucket_is_reported(s3):
    assert "no-such-bucket" in check_permissions("s3://no-such-bucket/run")[0]
