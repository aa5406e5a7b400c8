"""Mistakes in a folder of transformers' layout are reported by file, key and value."""

from __future__ import annotations

import re
from json import loads

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer

from dfn_ray.dry_run.network_files import describe_network
from dfn_ray.errors import InputError
from dfn_ray.network import folder_tokenizer
from dfn_ray.network.packed import pack_network
from tests.network import layout_tokenizers, layouts
from tests.network.conftest import spec
from tests.network.layouts import (
    by_dfn_ray,
    by_transformers,
    changed,
    difference,
    two_files,
    write,
)

OTHERS = {
    "siglip2": ({"model_type": "siglip2"}, "model_type siglip2.*NaFlex.*fixed"),
    "blip": ({"model_type": "blip", "architectures": ["BlipModel"]}, "BlipModel: a BLIP, which wr"),
    "git": ({"model_type": "git"}, "writes captions"),
    "bert": ({"model_type": "bert", "architectures": ["BertModel"]}, "BertModel: a text model"),
    "chinese": ({"model_type": "chinese_clip"}, "Chinese-CLIP"),
    "altclip": ({"model_type": "altclip"}, "AltCLIP"),
    "tower": ({"architectures": ["CLIPTextModelWithProjection"]}, "only a part of the network"),
    "unknown": (
        {"model_type": "x" * 999, "architectures": None},
        r"model_type x+\.\.\.\. In this layout",
    ),
    "code": (
        {"auto_map": {"AutoModel": "modeling.Net"}},
        "custom code.*code from a hub is never run",
    ),
    "quantised": (
        {"quantization_config": {"bits": 4}},
        "quantization_config: the weights are quan",
    ),
    "none": ({"model_type": None, "architectures": None}, "no model_type"),
}


@pytest.mark.parametrize(("values", "message"), OTHERS.values(), ids=OTHERS)
def test_another_kind_of_network_is_refused_by_what_it_is(clip, values, message):
    changed(clip, "config.json", lambda v: v.update(values))
    with pytest.raises(InputError, match=message):
        pack_network(spec(clip))


MISTAKES = {
    "missing section": (lambda v: v.update(text_config=7),
        r"config\.json: text_config: need an object, got 7"),
    "width": (lambda v: v["text_config"].update(hidden_size="32"),
        r"text_config\.hidden_size: .*, got \"32\""),
    "absurd width": (lambda v: v["vision_config"].update(hidden_size=10**9),
        r"vision_config\.hidden_size: "),
    "absurd whole": (
        lambda v: v["vision_config"].update(hidden_size=2**16, num_hidden_layers=1024,
            num_attention_heads=1),
        r"vision_config: has about \S+ parameters",
    ),
    "heads": (lambda v: v["text_config"].update(num_attention_heads=5),
        r"num_attention_heads: 5 does not divide 32"),
    "activation": (lambda v: v["text_config"].update(hidden_act="relu"),
        r"text_config\.hidden_act: .*relu"),
    "activations": (lambda v: v["text_config"].update(hidden_act="gelu"),
        r"hidden_act: gelu of the text and quick_gelu"),
    "eps": (lambda v: v["text_config"].update(layer_norm_eps=0), r"text_config\.layer_norm_eps: "),
    "patch": (lambda v: v["vision_config"].update(patch_size=65),
        r"patch_size: 65 is more than image_size, 64"),
    "list": (lambda v: v["vision_config"].update(image_size=[64, 64]),
        r"vision_config\.image_size: "),
    "channels": (lambda v: v["vision_config"].update(num_channels=1),
        r"vision_config\.num_channels: "),
    "end": (lambda v: v["text_config"].update(eos_token_id=[1, 2]), r"text_config\.eos_token_id: "),
    "end that is none": (lambda v: v["text_config"].update(eos_token_id=5),
        r"does not end captions with 5, the eos_token_id"),
    "dim": (lambda v: v.update(projection_dim=-1), r"projection_dim: need a whole number"),
    "classes": (lambda v: v.update(architectures="CLIPModel"), r"architectures: need a list"),
    "vocabulary": (lambda v: v["text_config"].update(vocab_size=100),
        r"vocab_size: 814 tokens, but the network has 100"),
    "more layers": (lambda v: v["text_config"].update(num_hidden_layers=3),
        r"16 missing \(text_model\.encoder\.layers\.2"),
    "fewer layers": (lambda v: v["text_config"].update(num_hidden_layers=1),
        r"16 left over \(text_model\.encoder\.layers\.1"),
    "another width": (
        lambda v: v["text_config"].update(intermediate_size=97),
        r"mlp\.fc1\.weight has the shape \(96, 32\), need \(97, 32\)",
    ),
    "own": (lambda v: v.update(dfn_ray={"custom_text": 1}),
        r"config\.json: dfn_ray: need custom_text"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_config_is_named(clip, edit, message):
    changed(clip, "config.json", edit)
    with pytest.raises(InputError, match=message):
        pack_network(spec(clip))


PROCESSORS = {
    "no resize": ({"do_resize": False}, r"do_resize: need true, got False"),
    "factor": ({"rescale_factor": 1 / 127.5}, r"rescale_factor: need 1/255, got 0\.0078"),
    "no rescale": ({"do_rescale": False}, r"do_rescale: need true, got False"),
    "resample": ({"resample": 0}, r"resample: need 3 \(bicubic\) or 2 \(bilinear\), got 0"),
    "pad": ({"do_pad": True}, r"do_pad: not supported"),
    "no crop": ({"do_center_crop": False},
        r"size: need height and width, because do_center_crop is off"),
    "crop": ({"crop_size": {"height": 32, "width": 32}},
        r"crop_size: the network takes images of 64x64"),
    "edge": ({"size": {"shortest_edge": 32}}, r"size: need at least crop_size, 64x64"),
    "longest": ({"size": {"longest_edge": 64}},
        r"size: need pixels, shortest_edge, or height and width"),
    "absurd": ({"size": 10**9}, r"size: need pixels"),
    "mean": ({"image_mean": [1, 2]}, r"image_mean: need a number for each of 3 channels"),
    "std": ({"image_std": [0, 1, 1]}, r"image_std: need numbers >= 0.0001"),
    "tiny std": ({"image_std": [1e-320, 1, 1]}, r"image_std: need numbers >= 0.0001"),
    "type": ({"image_processor_type": "BlipImageProcessor"},
        r"image_processor_type: need CLIPImageProcessor or Sig"),
    "switch": ({"do_normalize": "yes"}, r"do_normalize: need true or false, got 'yes'"),
    "code": ({"auto_map": {"AutoImageProcessor": "x.Y"}},
        r"auto_map: the image processor is custom code"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "message"), PROCESSORS.values(), ids=PROCESSORS)
def test_an_image_processor_that_cannot_be_expressed_is_refused_by_key_and_value(
    clip, values, message
):
    changed(clip, "processor_config.json", lambda v: v["image_processor"].update(values))
    said = refused_by_both(clip)
    assert re.search(message, said)


EXPRESSED = {
    "crop of a larger edge": {"size": {"shortest_edge": 80}},
    "crop of a larger box": {"size": {"height": 90, "width": 70}},
    "box": {"size": {"height": 64, "width": 64}, "do_center_crop": False},
    "no normalisation": {"do_normalize": False},
    "bilinear": {"resample": 2},
    "numbers": {"image_mean": 0.5, "image_std": 0.25},
}


@pytest.mark.parametrize("values", EXPRESSED.values(), ids=EXPRESSED)
def test_other_image_processors_give_transformers_scores(clip, values):
    changed(clip, "processor_config.json", lambda v: v["image_processor"].update(values))
    if values.get("image_mean"):  # transformers' own reads numbers from lists alone
        values = {key: [value] * 3 for key, value in values.items()}
        ours = by_dfn_ray(clip)
        changed(clip, "processor_config.json", lambda v: v["image_processor"].update(values))
    else:
        ours = by_dfn_ray(clip)
    assert difference(ours, by_transformers(clip)) < 1e-5


def sharded(folder, edit=lambda values: None):
    """The weights in two files and an index."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, files = (
        sorted(state),
        ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    )
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        safetensors.torch.save_file({name: state[name] for name in part}, folder / file)
    weight_map = {name: files[n % 2] for n, name in enumerate(names)}
    edit(weight_map)
    write(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def test_weights_in_several_files_are_those_of_one(clip, made):
    sharded(clip)
    assert pack_network(spec(clip)).weights_sha256 == pack_network(spec(made)).weights_sha256


def test_a_pickle_is_read_only_where_there_are_no_safetensors(clip, made):
    state = safetensors.torch.load_file(clip / "model.safetensors")
    torch.save({name: tensor + 1 for name, tensor in state.items()}, clip / "pytorch_model.bin")
    right = pack_network(spec(made)).weights_sha256
    assert pack_network(spec(clip)).weights_sha256 == right
    (clip / "model.safetensors").unlink()
    assert pack_network(spec(clip)).weights_sha256 != right
    torch.save(state, clip / "pytorch_model.bin")
    assert pack_network(spec(clip)).weights_sha256 == right


INDEXES = {
    "above": (lambda v: v.update(logit_scale="../model.safetensors"),
        "need a .safetensors file of this folder, got '../mo"),
    "elsewhere": (lambda v: v.update(logit_scale="/etc/passwd"),
        "need a .safetensors file of this folder, got '/etc/p"),
    "gone": (lambda v: v.update(logit_scale="gone.safetensors"),
        "logit_scale: need a .safetensors file of this folder"),
    "number": (lambda v: v.update(logit_scale=7),
        "weight_map.logit_scale: need a .safetensors file of this folder, got 7"),
    "list": (lambda v: v.update(logit_scale=[]),
        "weight_map.logit_scale: need a .safetensors file of this folder, got []"),
    "no weights": (lambda v: v.update(logit_scale="config.json"),
        "need a .safetensors file of this folder, got 'config"),
    "empty": (lambda v: v.clear(),
        "model.safetensors.index.json: weight_map: need an object, got {}"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), INDEXES.values(), ids=INDEXES)
def test_an_index_names_files_of_its_folder_alone_and_a_dry_run_says_so_too(clip, edit, message):
    sharded(clip, edit)
    assert message in refused_by_both(clip)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": ["a"]}', "\ud800"])
def test_what_is_no_index_is_named_by_both(clip, content):
    sharded(clip)
    index = clip / "model.safetensors.index.json"
    index.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert index.name in refused_by_both(clip)


def test_a_folder_in_neither_layout_or_without_weights_is_refused_in_the_same_words(clip):
    (clip / "model.safetensors").unlink()
    assert "has no weights: need model.safetensors or" in refused_by_both(clip)
    (clip / "config.json").unlink()
    said = refused_by_both(clip)
    assert "need a folder with open_clip_config.json (open_clip) or config.json (trans" in said
    assert "name its architecture as model and the file as pretrained" in said


def refused_by_both(folder) -> str:
    """The message of loading, which a dry run repeats after the setting."""
    with pytest.raises(InputError) as loading:
        pack_network(spec(folder))
    with pytest.raises(InputError) as looking:
        describe_network(spec(folder), "networks.0")
    said = str(looking.value).removeprefix("networks.0.model: ").removeprefix("local-dir:")
    assert said == str(loading.value).removeprefix("local-dir:")
    return said


def test_damaged_files_are_named(clip):
    whole = {
        name: (clip / name).read_bytes()
        for name in ("model.safetensors", "tokenizer.json", "config.json")
    }
    damage = {
        "model.safetensors": (whole["model.safetensors"][:-5], b"\x80", b""),
        "tokenizer.json": (b"{", b"[]", b'{"model": {"type": "BPE"}}', b"[" * 10**5, b"\xff"),
        "config.json": (b"{", b"[]", b'{"a": ' + b"[" * 500, b"\xff"),
    }
    for name, contents in damage.items():
        for content in contents:
            (clip / name).write_bytes(content)
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                pack_network(spec(clip))
        (clip / name).write_bytes(whole[name])
    assert pack_network(spec(clip)) is not None


TOKENIZERS = {
    "side": ({"padding_side": "left"}, r"padding_side: 'left' needs a mask in a CLIP"),
    "no side": ({"padding_side": "top"}, r"padding_side: need left or right, got 'top'"),
    "pad": ({"pad_token": "<pad>"}, r"does not contain its pad_token '<pad>'"),
    "type": ({"pad_token": 7}, r"pad_token: need a token, got 7"),
    "code": ({"auto_map": {"AutoTokenizer": "x.Y"}}, r"auto_map: the tokenizer is custom code"),
}


@pytest.mark.parametrize(("values", "message"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_cannot_be_expressed_is_refused(clip, values, message):
    changed(clip, "tokenizer_config.json", lambda v: v.update(values))
    said = refused_by_both(clip)
    assert re.search(message, said)


def test_a_tokenizer_that_splits_at_random_is_refused(clip):
    changed(clip, "tokenizer.json", lambda v: v["model"].update(dropout=0.1))
    with pytest.raises(InputError, match=r"model\.dropout: 0\.1 splits words at random"):
        pack_network(spec(clip))


def special(count: int = 1, number: int = 813):
    """A rule that adds this many tokens to every caption."""
    add = {"SpecialToken": {"id": "q", "type_id": 0}}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, *[add] * count]
    pair = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    tokens = {"q": {"id": "q", "ids": [number], "tokens": ["q"]}}
    rule = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}
    return {"post_processor": rule}


def model(kind: str, **values):
    return {"model": {"type": kind, "vocab": {"a": 0, "<|endoftext|>": 813}, **values}}


FILES = {
    "no unknown word": (model("WordLevel", unk_token="zz"),
        r"used as a tokenizer: WordLevel error: Missing \[UNK\]"),
    "no unknown piece": (
        {"model": {"type": "Unigram", "vocab": [["<|endoftext|>", 0.0]], "unk_id": None}},
        r"cannot be used as a tokenizer: Encountered an unknown token but `unk_id` is missing",
    ),
    "panic while read": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        r"cannot be used as a tokenizer: Precompiled: Error",
    ),
    "panic while used": (
        {"post_processor": {**special()["post_processor"], "special_tokens": {}}},
        r"tokenizer\.json: cannot be used as a tokenizer: ",
    ),
    "token that is added": (special(number=99999),
        r"vocab_size: 100,000 tokens, but the network has 814 embeddings"),
    "no room": (special(40),
        r"it adds 40 tokens to every caption, but the network's context has only 20"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "message"), FILES.values(), ids=FILES)
def test_a_tokenizer_that_could_not_serve_every_caption_is_refused_before(clip, values, message):
    changed(clip, "tokenizer.json", lambda v: v.update(values))
    said = refused_by_both(clip)
    assert re.search(message, said)
    assert "\n" not in said


MERGED = {
    "text": (lambda v: v.update(a="5"),
        r"vocab\.json: a: need a number below 814, text_config\.vocab_size, got '5'"),
    "negative": (lambda v: v.update(a=-5), r"vocab\.json: a: need a number below 814, .*, got -5"),
    "far beyond": (lambda v: v.update(zz=2**31),
        r"vocab\.json: zz: need a number below 814, .*, got 2147483648"),
    "end": (lambda v: v.pop("<|endoftext|>"),
        r"vocab\.json: <\|endoftext\|>: need a number below 814, .*, got None"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), MERGED.values(), ids=MERGED)
def test_a_vocabulary_of_byte_pairs_is_judged_before_a_table_is_made_of_it(clip, edit, message):
    two_files(clip, edit)
    said = refused_by_both(clip)
    assert re.search(message, said)


def test_a_line_of_merges_has_two_tokens(clip):
    two_files(clip)
    (clip / "merges.txt").write_text("a b c")
    with pytest.raises(InputError, match=r"merges\.txt: .*need two tokens a line, got 'a b c'"):
        pack_network(spec(clip))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers_are_refused(clip, dtype):
    state = safetensors.torch.load_file(clip / "model.safetensors")
    state["visual_projection.weight"] = state["visual_projection.weight"].to(dtype)
    safetensors.torch.save_file(state, clip / "model.safetensors")
    said = rf"visual_projection\.weight is of {str(dtype)[6:]}, need floating-point numbers"
    with pytest.raises(InputError, match=said):
        pack_network(spec(clip))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_point_type_are_read(clip, dtype):
    state = safetensors.torch.load_file(clip / "model.safetensors")
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    safetensors.torch.save_file(state, clip / "model.safetensors")
    assert difference(by_dfn_ray(clip), by_transformers(clip)) < 1e-5


def test_a_tokenizer_is_read_once_and_its_file_by_nobody_else(clip, monkeypatch):
    """A tokenizer of 256,000 tokens takes a second to read."""
    read = []

    class Counting:
        @staticmethod
        def from_str(text):
            read.append(text)
            return Tokenizer.from_str(text)

    monkeypatch.setattr(folder_tokenizer.tokenizers, "Tokenizer", Counting)
    monkeypatch.setattr(
        "dfn_ray.untrusted.json_text.json.loads", lambda text: read.append(text) or loads(text)
    )
    pack_network(spec(clip))
    assert read.count((clip / "tokenizer.json").read_text()) == 1


def test_a_clip_without_tokenizer_takes_clips_own_only_if_it_has_the_embeddings(clip):
    (clip / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer .* CLIP's own has 49,408 tokens"):
        pack_network(spec(clip))


def test_a_siglip_without_tokenizer_is_refused(tmp_path):
    layouts.siglip(tmp_path, {}, {}, layout_tokenizers.unigram_tokenizer())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer \(tokenizer\.json or spiece\.model\)"):
        pack_network(spec(tmp_path))
