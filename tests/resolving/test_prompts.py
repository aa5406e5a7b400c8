from __future__ import annotations

import open_clip
import pytest

from dfn_ray.errors import InputError
from dfn_ray.resolving.prompts import class_names, prompt, prompt_templates


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("openai", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("simple", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ],
)
def test_open_clips_templates_give_open_clips_prompts(name, functions):
    prompts = [prompt(template, "tench") for template in prompt_templates([name])]
    assert prompts == [function("tench") for function in functions]


def test_imagenets_names_are_open_clips():
    assert class_names(["imagenet"]) == tuple(open_clip.IMAGENET_CLASSNAMES)


def test_names_and_templates_come_from_a_file_with_one_a_line(tmp_path):
    (tmp_path / "names.txt").write_text("cat \nhot dog\n\n", encoding="utf-8-sig")
    (tmp_path / "templates.txt").write_text("a {c}.\nthe {} and {c}\n")
    assert class_names([str(tmp_path / "names.txt")]) == ("cat", "hot dog")
    templates = prompt_templates([str(tmp_path / "templates.txt")])
    assert [prompt(template, "{c} dog") for template in templates] == [
        "a {c} dog.",
        "the {c} dog and {c} dog",
    ]


def test_texts_are_taken_as_they_are():
    assert class_names(["night/day", "x.txt"]) == ("night/day", "x.txt")
    assert prompt_templates(["{}/{c}.txt"]) == ("{}/{c}.txt",)
    assert len(prompt_templates(["openai", "{}"])) == 81


def test_a_template_is_never_run():
    assert prompt("{c.__class__} {c}", "cat") == "{c.__class__} cat"


@pytest.mark.parametrize("given", [["a photo"], ["a {}", "{c.name}"], ["openai", "a"], []])
def test_a_template_without_a_place_for_the_name_is_refused(given):
    with pytest.raises(InputError, match="templates: need"):
        prompt_templates(given)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"class names: need a text file.*absent\.txt"):
        class_names([str(tmp_path / "absent.txt")])
