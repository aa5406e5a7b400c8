"""Values read from open_clip's files equal those of open_clip itself."""

from __future__ import annotations

import dataclasses
import inspect

import open_clip
from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from dfn_ray.network import open_clip_registry


def test_architectures_and_their_configs_are_open_clips():
    assert set(open_clip_registry.architectures()) == set(open_clip.list_models())
    for name in open_clip.list_models():
        assert open_clip_registry.architecture_config(name) == open_clip.get_model_config(name)
    assert open_clip_registry.architecture_config("ViT-B-33") is None


def test_every_tag_says_what_open_clip_says_of_it():
    for name in open_clip.list_models():
        tags = open_clip_registry.pretrained_tags(name)
        assert list(tags) == open_clip.list_pretrained_tags_by_model(name)
        for tag, value in tags.items():
            assert value == open_clip.get_pretrained_cfg(name, tag)
    as_people_write = open_clip_registry.tag_config("ViT-B-32", "LAION2B-s34b-b79k")
    assert as_people_write == open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    assert open_clip_registry.tag_config("ViT-B-32", "laion9b") is None


def test_configs_have_open_clips_fields_and_defaults():
    classes = open_clip_registry.config_classes()
    for kind in (CLIPVisionCfg, CLIPTextCfg, MultimodalCfg):
        assert dataclasses.asdict(classes[kind.__name__]()) == dataclasses.asdict(kind())
    arguments = {
        name
        for kind in (open_clip.CLIP, open_clip.CustomTextCLIP)
        for name in inspect.signature(kind).parameters
    }
    assert open_clip_registry.model_arguments() == arguments
