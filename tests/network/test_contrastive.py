"""Loss and gradients in training, against open_clip's own forward and loss."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.multiprocessing as mp
from open_clip.loss import ClipLoss, SigLipLoss
from torch.nn.parallel import DistributedDataParallel

from dfn_ray.network import text_tower
from dfn_ray.network.contrastive import Towers, backward, contrastive_loss
from tests.network.conftest import KINDS

CAPTIONS = [f"a photo of {'very ' * (n % 4)}thing {n}" for n in range(8)]


def build(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    cfg = {k: v for k, v in KINDS[kind].items() if k != "custom_text"}
    custom = KINDS[kind].get("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**cfg).train()


def inputs(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    size = KINDS[kind]["vision_cfg"]["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.randn(8, 3, height, width, generator=torch.Generator().manual_seed(1))
    length = KINDS[kind]["text_cfg"]["context_length"]
    return images, open_clip.SimpleTokenizer(context_length=length)(CAPTIONS)


def cropped(module: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    return tokens[:, : int(text_tower.lengths(module, tokens.numpy()).max())]


def open_clips_gradients(kind: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of open_clip's forward and loss on the whole batch, one process."""
    module = build(kind)
    module.output_dict = True
    loss = SigLipLoss() if kind == "siglip" else ClipLoss()
    value = loss(**module(*inputs(kind)))
    value.backward()
    return value.item(), {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("kind", ["vit", "custom_text", "eos_pool", "siglip"])
def test_loss_and_gradients_are_open_clips_whatever_the_micro_batches(kind, micro_batches):
    module = build(kind)
    towers = Towers(module, precision="fp32")
    loss = contrastive_loss("siglip" if kind == "siglip" else "clip", rank=0, world_size=1)
    images, tokens = inputs(kind)
    value = backward(towers, loss, images, cropped(module, tokens), micro_batches=micro_batches)
    expected, gradients = open_clips_gradients(kind)
    assert abs(float(value) - expected) < 1e-5
    assert_same({n: p.grad for n, p in module.named_parameters() if p.grad is not None}, gradients)


CASES = (("vit", 1), ("vit", 2), ("siglip", 1))
"""Kind of network and number of micro-batches."""


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    for kind, micro_batches in CASES:
        _step(rank, kind, micro_batches, f"{folder}/{kind}-{micro_batches}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _step(rank: int, kind: str, micro_batches: int, out: str) -> None:
    module = build(kind)
    model = DistributedDataParallel(Towers(module, precision="fp32"))
    loss = contrastive_loss("siglip" if kind == "siglip" else "clip", rank=rank, world_size=2)
    images, tokens = inputs(kind)
    mine = slice(4 * rank, 4 * rank + 4)
    value = backward(
        model, loss, images[mine], cropped(module, tokens[mine]), micro_batches=micro_batches
    )
    torch.distributed.all_reduce(value)
    if rank == 0:
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        torch.save({"loss": value / 2, "gradients": gradients}, out)


def test_two_workers_have_the_loss_and_gradients_of_one_with_the_whole_batch(tmp_path):
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    for kind, micro_batches in CASES:
        found = torch.load(tmp_path / f"{kind}-{micro_batches}.pt", weights_only=True)
        expected, gradients = open_clips_gradients(kind)
        assert abs(float(found["loss"]) - expected) < 1e-5, (kind, micro_batches)
        assert_same(found["gradients"], gradients)


def test_bf16_takes_the_cosine_in_float32():
    module = build("vit")
    images, tokens = inputs("vit")
    found = Towers(module, precision="bf16")(images, cropped(module, tokens))
    assert found.image_BD.dtype == found.text_BD.dtype == torch.float32
    plain = Towers(module, precision="fp32")(images, cropped(module, tokens))
    assert torch.cosine_similarity(found.image_BD, plain.image_BD).min() > 0.99
    assert not torch.equal(found.image_BD, plain.image_BD)
