"""Training loop: a generator of one EpochResult per epoch, which knows nothing of its listeners.

    for result in train(recipe, model, data, objective, resume):
        ...

Ray, the final training and a test all drive this same generator; a listener that stops asking stops the training.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from xlite_search import progress
from xlite_search.data.dataset import Batch, Data
from xlite_search.data.loaders import Loader, batches_per_epoch, ordered_batches
from xlite_search.data.views import mixup
from xlite_search.errors import BadInput, RunFailed, did_you_mean
from xlite_search.machine import device as this_device
from xlite_search.machine import this_machine
from xlite_search.power import Meter
from xlite_search.training.checkpoint import Checkpoint
from xlite_search.training.collapse import diagnose_training, watched
from xlite_search.training.compiling import compile_model, whole_batches_only
from xlite_search.training.evaluator import Evaluation, Evaluator, MultiLabel
from xlite_search.training.recipe import Recipe
from xlite_search.training.result import EpochResult

#: logits float `[batch, class]` and the batch they are of -> scalar
Objective = Callable[[Tensor, Batch], Tensor]


def configure_process(recipe: Recipe) -> None:
    """Sets the threads and the seed of this process. Processes are reused: call it before a model is built."""
    torch.set_num_threads(recipe.threads)
    cv2.setNumThreads(recipe.threads)
    torch.manual_seed(recipe.seed)


def train(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    objective: Objective,
    resume: Path | None = None,
    *,
    evaluate: Evaluator | None = None,
) -> Iterator[EpochResult]:
    """Trains to the recipe's end, from a checkpoint if one is given, exactly as if there had been no interruption.

    With `micro_batch` the objective is asked about pieces of a batch, and must be a mean over images. `evaluate` judges
    every epoch; None: `MultiLabel`, which takes the objective for the recipe's loss and nothing else.

    Raises:
        BadInput: the data cannot give what the recipe asks for, or the evaluator not the metric that it monitors.
        RunFailed: the model has collapsed (`training/collapse.py` says how).
        Damaged: the checkpoint is no checkpoint.
    """
    recipe.expect_fitting(data)
    if evaluate is None:
        evaluate = MultiLabel.of(data, recipe.loss.build(data.train.positives, len(data.train)))
    with closing(Trainer(recipe, model.to(this_device()), data, objective)) as trainer:
        done, best = trainer.resume(resume) if resume else (0, {"epoch": 0.0, "score": -math.inf})
        for epoch in range(done + 1, (recipe.stop_after or recipe.epochs) + 1):
            started = time.perf_counter()
            metrics = trainer.fit(epoch)
            fitted = time.perf_counter()
            judged = _judged(trainer, evaluate)
            metrics |= judged.metrics
            score = metrics[recipe.monitor] if len(data.val) else None
            trainer.lr_scheduler.after_epoch(score)
            improved = score is None or score > best["score"]
            if improved:
                best = {"epoch": float(epoch), "score": 0.0 if score is None else score}
            metrics |= {"time/epoch_s": time.perf_counter() - started, "time/val_s": time.perf_counter() - fitted}
            metrics |= trainer.meter.read()
            ended, state = _end(recipe, epoch, best), trainer.checkpoint(epoch, best)
            yield EpochResult(epoch, metrics, improved, ended, state, judged.predictions)
            if ended:
                return


def _judged(trainer: Trainer, evaluate: Evaluator) -> Evaluation:
    """What the evaluator says of the validation part; nothing if there is none."""
    val, monitor = trainer.data.val, trainer.recipe.monitor
    if not len(val):
        return Evaluation()
    found = evaluate(trainer.predict(), val.labels)
    if found.collapse:
        raise RunFailed(str(found.collapse))
    if monitor not in found.metrics:
        near = did_you_mean(monitor, found.metrics) or f"; it gives {', '.join(sorted(found.metrics)) or 'none'}"
        raise BadInput(f"monitor = {monitor}: the trainable's evaluator gives no such metric{near}")
    return found


class Trainer:
    """A model with its optimizer, schedule and scaler: what trains together, and is remembered together."""

    def __init__(self, recipe: Recipe, model: nn.Module, data: Data, objective: Objective) -> None:
        self.recipe, self.model, self.data, self.objective = recipe, model, data, objective
        self.device = this_device()
        self.optimizer = recipe.optimizer.build(model)
        steps = batches_per_epoch(data.train, recipe.batch_size)
        self.lr_scheduler = recipe.schedule.build(self.optimizer, recipe.epochs, steps)
        scaled = self.device.type == "cuda" and recipe.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.average = ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.steps = 0
        if recipe.compile:
            compile_model(model)
            if self.average is not None:
                compile_model(self.average.module)
        self.loader = Loader(
            data.train,
            recipe.batch_size,
            seed=recipe.seed,
            device=self.device,
            sampler=recipe.sampler,
            augment=recipe.augment,
            workers=this_machine().loader_workers(self.device.type),
        )
        self.meter = Meter(self.device)

    def fit(self, epoch: int) -> dict[str, float]:
        """One pass over the training part, from a seed of its own. The loss leaves the device once, at the end."""
        recipe = self.recipe
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)
        self.model.train()
        self.steps = (epoch - 1) * batches_per_epoch(self.data.train, recipe.batch_size)
        rate = self.optimizer.param_groups[0]["lr"]
        steps = list(self.steps_of(epoch))
        losses, norms = (
            torch.stack([value for value in values if value is not None]).cpu().double().numpy()
            for values in zip(*steps, strict=True)
        )
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        collapsed = diagnose_training(losses, norms, parameters, (batch.images for batch in self.batches(epoch)))
        if collapsed:
            raise RunFailed(str(collapsed))
        return {"train/loss": float(losses.mean()), "train/lr": rate, "model/parameters": float(parameters)}

    def steps_of(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What each step of an epoch comes to; the last ones with their gradient's norm."""
        count = batches_per_epoch(self.data.train, self.recipe.batch_size)
        progress.report(progress.TRAINING, 0, count)
        for number, batch in enumerate(self.batches(epoch), start=1):
            yield self.step(batch, watch=number > count - watched(count))
            progress.report(progress.TRAINING, number, count, len(batch.rows))

    def step(self, batch: Batch, *, watch: bool = False) -> tuple[Tensor, Tensor | None]:
        """One update; the loss and, if watched, the norm of its gradient before clipping, which stay on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(
            [self.backward(part, len(part.rows) / len(batch.rows)) for part in batch.parts(self.recipe.micro_batch)]
        ).sum()
        self.scaler.unscale_(self.optimizer)
        norm = self.clipped() if watch or self.recipe.clip_norm else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.lr_scheduler.after_step()
        self.steps += 1
        if self.average is not None:
            self.average.update(self.model, self.steps)
        return loss, norm if watch else None

    def clipped(self) -> Tensor:
        """The norm of the gradient, which is clipped if the recipe says so."""
        gradients = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in gradients if p.grad is not None])
        if self.recipe.clip_norm:
            nn.utils.clip_grads_with_norm_(gradients, self.recipe.clip_norm, norm)
        return norm.float()

    def backward(self, part: Batch, share: float) -> Tensor:
        """Adds to the gradients what a piece of the batch says, by its share of the batch: losses are means."""
        with self.autocast():
            loss = self.objective(self.model(part.images), part) * share
        torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach().float()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The epoch's batches, mixed if the recipe says so."""
        recipe = self.recipe
        for step, batch in enumerate(self.loader.epoch(epoch)):
            if recipe.mixup:
                drawn = recipe.mixup, recipe.seed, epoch, step
                images, labels, weights = mixup(batch.images, batch.labels, batch.weights, *drawn)
                batch = batch._replace(images=images, labels=labels, weights=weights)
            yield batch

    def endless(self) -> Generator[Batch]:
        """Batches of one epoch after the other."""
        for epoch in itertools.count(1):
            yield from self.batches(epoch)

    @torch.inference_mode()
    def predict(self, positions: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Logits of the validation part, or of some of it, `[image, class]`, in the order of its rows."""
        model = self.model if self.average is None else self.average.module
        model.eval()
        logits = []
        count = -(-len(self.data.val if positions is None else positions) // self.recipe.batch_size)
        progress.report(progress.VALIDATING, 0, count)
        for batch in ordered_batches(self.data.val, self.recipe.batch_size, self.device, positions=positions):
            with self.autocast(), self.compiled_for(len(batch.rows)):
                logits.append(model(batch.images).float())
            progress.report(progress.VALIDATING, len(logits), count, len(batch.rows))
        return np.asarray(torch.cat(logits).cpu().numpy(), np.float32)

    def compiled_for(self, images: int) -> AbstractContextManager[object]:
        """Within it a validation batch of that size is computed; the last one is smaller."""
        return whole_batches_only(images, self.recipe.batch_size, compiled=self.recipe.compile)

    def autocast(self) -> torch.autocast:
        """The forward pass's precision: half on a GPU if asked for, float32 on a CPU."""
        half = torch.float16 if self.recipe.precision == "fp16" else torch.bfloat16
        enabled = self.device.type == "cuda" and self.recipe.precision != "fp32"
        return torch.autocast(self.device.type, dtype=half, enabled=enabled)

    def checkpoint(self, epoch: int, best: dict[str, float]) -> Checkpoint:
        optimizer, schedule, scaler = self.optimizer.state_dict(), self.lr_scheduler.state(), self.scaler.state_dict()
        average = self.average.module.state_dict() if self.average is not None else {}
        return Checkpoint(epoch, self.model.state_dict(), optimizer, schedule, scaler, best, average)

    def close(self) -> None:
        self.loader.close()
        self.meter.close()

    def resume(self, path: Path) -> tuple[int, dict[str, float]]:
        """Takes all back to a checkpoint; returns its epoch, and the best epoch until then."""
        checkpoint = Checkpoint.load(path, self.device)
        self.restore(checkpoint)
        return checkpoint.epoch, checkpoint.best

    def restore(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.lr_scheduler.restore(checkpoint.schedule)
        self.scaler.load_state_dict(checkpoint.scaler)
        if self.average is not None:
            self.average.module.load_state_dict(checkpoint.average)


def _end(recipe: Recipe, epoch: int, best: dict[str, float]) -> str | None:
    if epoch == recipe.epochs:
        return f"trained to its end, {epoch} epochs"
    if epoch == recipe.stop_after:
        return f"trained to epoch {epoch} of a schedule of {recipe.epochs}, as asked"
    if recipe.early_stopping and epoch - best["epoch"] >= recipe.early_stopping:
        return (
            f"stopped early: {recipe.monitor} was best at epoch {best['epoch']:.0f}, {recipe.early_stopping} epochs ago"
        )
    return None
