"""DDP and FSDP2 equal one process, and their saved state loads in one process and back."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dfn_ray.config import Optimizer, Workers
from dfn_ray.network.contrastive import Towers, backward, contrastive_loss
from dfn_ray.testing.random_networks import TINY
from dfn_ray.training.step.optimizer import make_optimizer
from dfn_ray.training.step.parallel import (
    clip_gradients,
    load_whole_model,
    load_whole_optimizer,
    parallelize,
    parameters_by_name,
    reduce_unsharded,
    whole_model,
    whole_optimizer,
)

STEPS = 3


def steps(rank: int, world: int, parallel: str, count: int, state=None):
    """The model and optimizer after some steps on a batch that the workers share."""
    torch.manual_seed(0)
    workers = Workers(parallel=parallel, max_size=world, grad_checkpointing=world > 1)
    model = parallelize(
        Towers(open_clip.CLIP(**TINY).train(), precision="fp32"), workers, torch.device("cpu")
    )
    optimizer = make_optimizer(parameters_by_name(model), Optimizer(learning_rate=1e-2))
    if state is not None:
        load_whole_model(model, state["model"])
        load_whole_optimizer(model, optimizer, state["optimizer"])
    loss = contrastive_loss("clip", rank=rank, world_size=world)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    tokens = open_clip.SimpleTokenizer(context_length=16)([f"thing {n}" for n in range(8)])
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for _ in range(count):
        optimizer.zero_grad()
        backward(model, loss, images[mine], tokens[mine])
        reduce_unsharded(model)
        clip_gradients(model, 0.5)
        optimizer.step()
    return {"model": whole_model(model), "optimizer": whole_optimizer(model, optimizer)}


def _worker(rank: int, path: str, parallel: str, state, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    found = steps(rank, 2, parallel, STEPS, state)
    if rank == 0:
        torch.save(found, out)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp2"])
def test_two_workers_go_on_from_one_and_end_where_one_would(tmp_path, parallel):
    start = steps(0, 1, "ddp", STEPS)
    out = str(tmp_path / "out.pt")
    mp.spawn(_worker, (str(tmp_path / "rendezvous"), parallel, start, out), nprocs=2)
    found = torch.load(out, weights_only=True)
    expected = steps(0, 1, "ddp", STEPS, start)
    assert expected["optimizer"]["visual.proj/step"].item() == 2 * STEPS
    for part in ("model", "optimizer"):
        assert found[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            torch.testing.assert_close(found[part][name], tensor, atol=2e-4, rtol=1e-2, msg=name)


def test_gradients_are_clipped_as_torch_clips_them():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    for model in (ours, theirs):
        model(torch.ones(4, 5)).pow(2).sum().backward()
    norm = clip_gradients(ours, 0.1)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert ours.weight.grad.norm() < 0.11
