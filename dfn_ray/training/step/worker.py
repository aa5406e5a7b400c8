"""One Ray Train worker: the step loop on one device, from the stream of batches to checkpoints."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor

from dfn_ray.config import TrainRecipe, recipe_values
from dfn_ray.errors import TrainingFailedError
from dfn_ray.network import text_tower, weights
from dfn_ray.network.contrastive import Towers, backward, contrastive_loss
from dfn_ray.network.packed import PackedNetwork, network_files, trainable_module
from dfn_ray.training.chain import DATASET, Batch, batches
from dfn_ray.training.checkpoint import commit_checkpoint, read_tensors, remove_old, write_network
from dfn_ray.training.data.feed import COUNTED
from dfn_ray.training.data.read_counts import check_training, limits_of, training_values
from dfn_ray.training.position import current_generation, record_reached
from dfn_ray.training.step.log_sinks import open_sinks
from dfn_ray.training.step.optimizer import learning_rate, make_optimizer
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
from dfn_ray.training.step.step_times import StepTimes
from dfn_ray.training.worker_spec import WorkerSpec, trained_network_folder

REACHED_INTERVAL_S = 5.0
"""Seconds between records of the samples reached, each a small write to the run's storage."""


def train_worker(config: Mapping[str, WorkerSpec]) -> None:
    """Trains until the last sample of the spec; Ray Train calls it on every worker."""
    _Worker(config["spec"]).train()


class _Worker:
    def __init__(self, spec: WorkerSpec) -> None:
        self._spec, self._recipe, self._run = spec, spec.recipe, spec.run
        context = ray.train.get_context()
        self._rank, self._world = context.get_world_rank(), context.get_world_size()
        self._device = _device(self._recipe)
        torch.set_num_threads(self._recipe.workers.threads or math.ceil(self._recipe.workers.cpus))
        self._generation = current_generation(self._run)
        self._position = self._generation.position
        self._packed: PackedNetwork = ray.get(spec.network)
        self._module: Any = trainable_module(self._packed)
        self._model = parallelize(
            Towers(self._module, precision="bf16" if self._packed.precision == "bf16" else "fp32"),
            self._recipe.workers,
            self._device,
        )
        self._optimizer = make_optimizer(parameters_by_name(self._model), self._recipe.optimizer)
        if self._position.name is not None:
            load_whole_model(self._model, read_tensors(self._run, self._position, "model"))
            load_whole_optimizer(
                self._model, self._optimizer, read_tensors(self._run, self._position, "optimizer")
            )
        self._loss = contrastive_loss(self._recipe.loss, rank=self._rank, world_size=self._world)
        self._mean, self._std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (self._packed.transform.mean, self._packed.transform.std)
        )
        micro = self._recipe.batch_size // self._world // self._recipe.accumulate
        self._batch_size = micro * self._recipe.accumulate
        self._recorded_at = -math.inf
        self._times = StepTimes(self._world)
        self._sinks = (
            open_sinks(
                self._recipe.logs, self._run, recipe_values(self._recipe), self._generation.name
            )
            if self._rank == 0
            else []
        )

    def train(self) -> None:
        """Runs steps until the last sample, with checkpoints."""
        if self._rank == 0:
            remove_old(self._run, self._generation, self._recipe.checkpoints.keep)
        step_samples = self._batch_size * self._world
        every, exports = (
            self._recipe.samples_between_checkpoints,
            self._recipe.checkpoints.export_at_samples,
        )
        samples = ray.train.get_dataset_shard(DATASET)
        assert samples is not None, "the driver must pass the dataset under this name"
        stream = batches(
            samples,
            batch_size=self._batch_size,
            prefetch=self._recipe.feed.prefetch_batches,
            generation=self._generation.number,
        )
        while self._spec.until_samples - self._position.samples_seen >= step_samples:
            before = self._position.samples_seen
            self._times.wait()
            batch = next(stream, None)
            if batch is None:
                break  # the planned groups are used up; the driver plans the next ones
            self._times.go(batch)
            figures = self._step(batch, before)
            self._position = replace(
                self._position, samples_seen=before + step_samples, steps=self._position.steps + 1
            )
            seen = self._position.samples_seen
            is_last = self._spec.until_samples - seen < step_samples
            if is_last or self._position.steps % self._recipe.logs.every_steps == 0:
                self._log(figures)
            for point in exports:
                if before < point <= seen:
                    self._export(trained_network_folder(point))
            if before // every != seen // every:
                self._commit()
        if self._times.has_uncommitted:
            self._commit()
        if self._recipe.samples_seen - self._position.samples_seen < step_samples:
            self._export(trained_network_folder())

    def _step(self, batch: Batch, samples_seen: int) -> dict[str, Tensor | float]:
        recipe = self._recipe
        image_BCHW = batch["image"].to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        image_BCHW = image_BCHW.float().div_(255).sub_(self._mean).div_(self._std)
        length = int(text_tower.lengths(self._module, batch["text"].numpy()).max())
        text_BL = batch["text"][:, :length].to(self._device, non_blocking=True)
        rate = learning_rate(
            recipe.optimizer,
            samples_seen=samples_seen,
            total_samples=recipe.samples_seen,
            batch_size=recipe.batch_size,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = backward(
            self._model, self._loss, image_BCHW, text_BL, micro_batches=recipe.accumulate
        )
        reduce_unsharded(self._model)
        norm = None
        if recipe.optimizer.clip_norm is not None:
            norm = clip_gradients(self._model, recipe.optimizer.clip_norm)
        self._optimizer.step()
        with torch.no_grad():
            self._module.logit_scale.clamp_(0, math.log(recipe.optimizer.max_logit_scale))
        self._times.done(loss)
        return {"learning_rate": rate} | ({} if norm is None else {"gradient_norm": norm})

    def _log(self, figures: Mapping[str, Tensor | float]) -> None:
        """Reports the steps since the last report.

        Raises TrainingFailedError if the loss is not finite.
        """
        line = self._times.line(
            samples_seen=self._position.samples_seen,
            steps=self._position.steps,
            logit_scale=self._module.logit_scale.detach().exp().item(),
            **{name: float(value) for name, value in figures.items()},
        )
        if not math.isfinite(line["loss"]):
            raise TrainingFailedError(
                f"{self._run.store.uri}: the loss is {line['loss']} at step "
                f"{self._position.steps:,}. Lower optimizer.learning_rate, set optimizer.clip_norm "
                "or increase optimizer.warmup_steps"
            )
        if self._rank == 0:
            self._record_reached()
            for sink in self._sinks:
                sink.write({k: v for k, v in line.items() if k != "steps"}, line["steps"])
            if self._spec.reports is not None:
                self._spec.reports.add.remote(line)

    def _record_reached(self) -> None:
        """Records the samples that these workers have trained on, at most every few seconds."""
        now = time.monotonic()
        if now - self._recorded_at < REACHED_INTERVAL_S:
            return
        self._recorded_at = now
        record_reached(self._run, self._generation, self._position.samples_seen)

    def _commit(self) -> None:
        """Commits a checkpoint of all workers."""
        model = whole_model(self._model)
        optimizer = whole_optimizer(self._model, self._optimizer)
        mine = self._times.take_places(self._position.seen.groups)
        gathered: list[Any] = [mine]
        if self._world > 1:
            gathered = [None] * self._world
            dist.all_gather_object(gathered, mine)
        # Each worker receives rows in the order of groups: groups that all have passed are
        # complete.
        closed = min(latest for _, latest, _ in gathered)
        seen = self._position.seen.with_spans(
            np.concatenate([spans for spans, _, _ in gathered]), closed=closed
        )
        self._position = replace(self._position, seen=seen)
        lines = self._times.take_lines()
        if self._rank == 0:
            counts = self._counts([counts for _, _, counts in gathered], closed)
            self._position = replace(
                self._position, counts=dict(Counter(self._position.counts) + counts)
            )
            lines.append(
                {
                    "checkpoint": self._position.samples_seen,
                    **training_values(counts),
                    "generation": self._generation.number,
                    "began_at": self._generation.position.samples_seen,
                    "repeats": self._generation.repeats,
                }
            )
            self._position = commit_checkpoint(
                self._run,
                self._generation,
                self._position,
                model=model,
                optimizer=optimizer,
                lines=lines,
                keep=self._recipe.checkpoints.keep,
            )
            for sink in self._sinks:
                sink.save(self._run)
            self._check_error_limits()
        if self._world > 1:
            dist.barrier()
        ray.train.report({"samples_seen": self._position.samples_seen})

    def _counts(self, of_workers: Sequence[np.ndarray], closed: int) -> Counter[str]:
        """Counts since the last checkpoint: of rows, and of closed groups' places without one."""
        total_C = np.sum(of_workers, axis=0)
        if self._spec.reports is not None:
            generation = self._generation.number
            total_C += ray.get(self._spec.reports.take_unplaced.remote(generation, closed))
        return Counter({name: int(n) for name, n in zip(COUNTED, total_C, strict=True) if n})

    def _check_error_limits(self) -> None:
        """Raises ErrorLimitExceededError if more samples failed than the recipe allows."""
        position = self._position
        left = self._recipe.samples_seen - position.samples_seen
        check_training(
            self._spec.read,
            position.counts,
            position.samples_seen,
            limits_of(self._recipe),
            where=f"{self._run.store.uri}: ",
            final=left < self._batch_size * self._world,
        )

    def _export(self, folder: str) -> None:
        """Writes the network for open_clip, averaged with its start if the recipe requests it."""
        state = whole_model(self._model)
        if self._rank == 0:
            if self._recipe.ensemble_alpha is not None:
                start = {
                    name: torch.from_numpy(np.array(a)) for name, a in self._packed.state.items()
                }
                state = weights.interpolate(start, state, self._recipe.ensemble_alpha)
            files = network_files(self._packed, state)
            write_network(self._run, self._generation, folder, files)


def _device(recipe: TrainRecipe) -> torch.device:
    if recipe.workers.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
