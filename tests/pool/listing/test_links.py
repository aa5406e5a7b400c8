"""Members of a tar that are links: second names of bytes that are stored elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile

import pytest

from dfn_ray.schema import Reason
from dfn_ray.testing.sample_pools import TarBuilder


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("linked", [("jpg", "txt"), ("jpg",), ("txt",)])
@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_a_sample_of_links_fails_by_reason_and_costs_no_other(read, kind, linked, chunk_rows):
    tar = TarBuilder().sample("a", image=b"image", caption="c")
    for extension in ("jpg", "txt"):
        if extension in linked:
            tar.member(f"b.{extension}", kind=kind)
        else:
            tar.member(f"b.{extension}", b"own")
    tar.sample("c", image=b"image", caption="c")
    result = read(tar.getvalue(), chunk_rows=chunk_rows)
    assert result.reasons == {"a": None, "b": Reason.LINKED_MEMBER, "c": None}
    assert result.last.fault is None


def test_links_that_are_no_part_of_a_sample_are_passed_by(read):
    tar = TarBuilder().sample("a", image=b"image", caption="c")
    for name in ("a.npz", "latest", "._a.jpg", "b.jpg.bak"):
        tar.member(name, kind=tarfile.SYMTYPE)
    assert read(tar.getvalue()).reasons == {"a": None}


def test_links_in_a_tar_sorted_by_extension_fail_by_reason(read):
    tar = TarBuilder()
    for extension in ("jpg", "txt"):
        for number in range(6):
            kind = tarfile.LNKTYPE if number == 4 else tarfile.REGTYPE
            tar.member(f"{number}.{extension}", b"" if number == 4 else b"data", kind=kind)
    reasons = read(tar.getvalue(), chunk_rows=2).reasons
    assert reasons == {str(n): Reason.LINKED_MEMBER if n == 4 else None for n in range(6)}


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_hard_links_as_gnu_tar_writes_them_are_no_loss_without_a_word(read, tmp_path):
    for extension in ("jpg", "txt"):
        (tmp_path / f"a.{extension}").write_bytes(b"data")
        os.link(tmp_path / f"a.{extension}", tmp_path / f"b.{extension}")
    names = ["a.jpg", "a.txt", "b.jpg", "b.txt"]
    subprocess.run(["tar", "-cf", "x.tar", *names], cwd=tmp_path, check=True)
    reasons = read((tmp_path / "x.tar").read_bytes()).reasons
    assert reasons == {"a": None, "b": Reason.LINKED_MEMBER}
