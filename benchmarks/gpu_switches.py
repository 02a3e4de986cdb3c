"""Each switch of a GPU off and on: rate, memory and energy of the product's own loop. Part of gpu.py."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn

from xlite_search import power
from xlite_search.config import RunConfig
from xlite_search.data import loaders
from xlite_search.data.dataset import Batch, open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.distill import logit_store
from xlite_search.distill.teacher_logits import Cached
from xlite_search.execution import release_memory
from xlite_search.machine import device, peak_memory
from xlite_search.models.hybrid import Hybrid
from xlite_search.training import compiling
from xlite_search.training.loop import Trainer, configure_process

WARM_UP = 3
Said = TypeVar("Said")
#: numbers of views that no store has yet: a view is computed once
VIEWS = count()


@dataclass(frozen=True)
class Cost:
    """images/s; GB at the peak, of the GPU or, without one, of this process; Wh for 1,000 images, 0 if nobody knows."""

    rate: float
    gb: float
    wh: float

    def figures(self, name: str) -> dict[str, float]:
        return {f"{name}_images_s": self.rate, f"{name}_gb": self.gb, f"{name}_wh": self.wh}


@dataclass(frozen=True)
class Switch:
    """What a case has otherwise than the lab's recipe on a GPU: settings, or code of ours that is put aside."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    without: Callable[[], AbstractContextManager[object]] = nullcontext


@contextmanager
def contiguous() -> Iterator[None]:
    """Weights and images as torch makes them, channels first."""

    def normalised(model: Hybrid, images: Tensor) -> Tensor:
        return ((images.float() / 255 - model.mean) / model.std).contiguous()

    layout = property(lambda model: torch.contiguous_format)
    with mock.patch.object(Hybrid, "layout", layout), mock.patch.object(Hybrid, "normalised", normalised):
        yield


def unfused() -> AbstractContextManager[object]:
    """torch's default: some kernels for many tensors, not one."""
    plain = torch.optim.AdamW
    return mock.patch.object(torch.optim, "AdamW", lambda groups, **given: plain(groups, **{**given, "fused": None}))


def tensor_by_tensor() -> AbstractContextManager[object]:
    """The gradient's norm of each tensor by a kernel of its own."""
    return mock.patch.object(nn.utils, "get_total_norm", partial(nn.utils.get_total_norm, foreach=False))


def unpinned() -> AbstractContextManager[object]:
    """Batches are made when they are asked for, and waited for while they are copied."""

    def on(where: torch.device, produce: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
        for batch in produce():
            images, labels = batch.images.to(where), batch.labels.to(where)
            yield batch._replace(images=images, labels=labels)

    return mock.patch.object(loaders, "_on", on)


#: each is timed beside `on`, which has all but the compiler; `views` shows what the loader's workers keep up with
SWITCHES: dict[str, Switch] = {
    "on": Switch(),
    "fp32": Switch({"precision": "fp32"}),
    "contiguous": Switch(without=contiguous),
    "unfused": Switch(without=unfused),
    "norms": Switch(without=tensor_by_tensor),
    "unpinned": Switch(without=unpinned),
    "views": Switch({"augment": "medium"}),
    "compiled": Switch({"compile": True}),
}


def timed(step: Callable[[], int], seconds: float, where: torch.device) -> Cost:
    """Of a step that says how many images it took; the GPU is waited for before and after, not between."""
    for _ in range(WARM_UP):
        step()
    _wait(where)
    with closing(power.Meter(where)) as meter:
        images, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds or not images:
            images += step()
        _wait(where)
        spent, drawn = time.perf_counter() - began, meter.read().get("energy/gpu_wh", 0.0)
    return Cost(images / spent, peak_memory(where) / 1e9, 1000 * drawn / images)


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize()


def cleared() -> None:
    """Nothing of the case before counts for the next."""
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def trainer_of(config: RunConfig) -> Iterator[Trainer]:
    """The product's, as `baseline` has it."""
    configure_process(config)
    data = open_data(config.data)
    model, hard = config.build(data)
    with closing(
        Trainer(config, model.to(device()), data, lambda logits, batch: hard(logits, batch.labels, batch.weights))
    ) as trainer:
        trainer.model.train()
        yield trainer


def training(config: RunConfig, switch: Switch, seconds: float) -> Cost:
    """The product's steps on batches from its loader."""
    cleared()
    with (
        switch.without(),
        trainer_of(config.with_settings(dict(switch.settings))) as trainer,
        closing(trainer.endless()) as batches,
    ):

        def step() -> int:
            batch = next(batches)
            trainer.step(batch)
            return len(batch.rows)

        return timed(step, seconds, trainer.device)


def bare(config: RunConfig, seconds: float) -> Cost:
    """A plain torch loop with the same model, precision, layout and optimizer, on tensors that are on the GPU."""
    cleared()
    configure_process(config)
    data, where = open_data(config.data), device()
    model = config.build(data)[0].to(where).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, fused=where.type == "cuda")
    there = cycle(list(ordered_batches(data.train, config.batch_size, where))[:-1])

    def step() -> int:
        batch = next(there)
        with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch.images).float(), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        return len(batch.rows)

    return timed(step, seconds, where)


def bulk(config: RunConfig, seconds: float, *, batch: int = logit_store.INFERENCE_BATCH) -> Cost:
    """The teacher's logits of views that no store has, by the product's store, files included."""
    cleared()
    assert config.kd is not None
    data, where = open_data(config.data), device()
    with mock.patch.object(logit_store, "INFERENCE_BATCH", batch):
        source = Cached(config, config.kd, data, where)

        def view() -> int:
            before = source.store.computed
            source.store.view(next(VIEWS), source.compute, where)
            return source.store.computed - before

        return timed(view, seconds, where)


def bare_bulk(config: RunConfig, seconds: float) -> Cost:
    """The teacher alone on tensors that are on the GPU already."""
    cleared()
    assert config.kd is not None
    data, where = open_data(config.data), device()
    teacher = Cached(config, config.kd, data, where).teacher
    there = cycle([batch.images for batch in ordered_batches(data.train, logit_store.INFERENCE_BATCH, where)][:-1])

    def step() -> int:
        images = next(there)
        teacher(images)
        return len(images)

    return timed(step, seconds, where)


def at_once(configs: Sequence[RunConfig], seconds: float, processes: int) -> list[float]:
    """images/s of so many processes together that train on one GPU, with one config after the other."""
    cleared()
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    given = [config.model_dump_json() for config in configs], seconds, barrier, rates
    found = _in_processes(context, _one_of_some, given, processes, rates)
    return [sum(each) for each in zip(*found, strict=True)]


def _one_of_some(configs: list[str], seconds: float, barrier: Barrier, rates: Queue[list[float]]) -> None:
    rates.put([_beside_others(RunConfig.model_validate_json(config), seconds, barrier) for config in configs])


def _beside_others(config: RunConfig, seconds: float, barrier: Barrier) -> float:
    cleared()
    with trainer_of(config) as trainer, closing(trainer.endless()) as batches:

        def step() -> int:
            batch = next(batches)
            trainer.step(batch)
            return len(batch.rows)

        timed(step, 0.0, trainer.device)
        barrier.wait(timeout=240)
        return timed(step, seconds, trainer.device).rate


def first_compiled_s(config: RunConfig, backend: str) -> float:
    """Seconds that the first step and the first validation of a compiled run take in a fresh process, imports apart."""
    cleared()
    context = multiprocessing.get_context("spawn")
    spent = context.Queue()
    given = config.model_dump_json(), backend, spent
    seconds: list[float] = _in_processes(context, _compiled_once, given, 1, spent)
    return seconds[0]


def _compiled_once(config: str, backend: str, spent: Queue[float]) -> None:
    compiling.BACKEND = backend
    importlib.import_module("torch._inductor.compile_fx")
    given = RunConfig.model_validate_json(config).with_settings({"compile": True})
    began = time.perf_counter()
    with trainer_of(given) as trainer, closing(trainer.endless()) as batches:
        trainer.step(next(batches))
        trainer.predict()
        _wait(trainer.device)
    spent.put(time.perf_counter() - began)


def _in_processes(
    context: Any, work: Callable[..., None], given: tuple[object, ...], processes: int, said: Queue[Said]
) -> list[Said]:
    """What each puts into the queue. Raises RuntimeError if one ends without a word."""
    started = [context.Process(target=work, args=given) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=300)
        if process.exitcode != 0:
            for each in started:
                each.kill()
            raise RuntimeError(f"{work.__name__}: a process ended with {process.exitcode}")
    return [said.get(timeout=10) for _ in started]
