"""What a GPU is asked for, held on a CPU by fakes of it: nothing here computes on one."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import finished_study
from test_cli import call
from torch import Tensor, nn

import trainables.baseline
from xlite_search.config import RunConfig
from xlite_search.data import workers
from xlite_search.data.dataset import Batch, open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.distill import logit_store
from xlite_search.errors import OutOfMemory
from xlite_search.execution import out_of_memory_named, release_memory
from xlite_search.places import model_folder
from xlite_search.power import Meter
from xlite_search.records import RunRecord
from xlite_search.results.best import write_best
from xlite_search.search import worker
from xlite_search.training import loop
from xlite_search.training.optim import AdamW
from xlite_search.training.result import EpochResult

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """There is a GPU; what torch.cuda was asked for."""
    found: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("empty_cache", "set_per_process_memory_fraction"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, name=name: found.append((name, *given)))
    return found


@pytest.mark.parametrize(("share", "memory"), [(0.5, 0.475), (0.25, 0.2375), (1.0, 1.0)])
def test_a_run_keeps_to_its_share_of_the_memory_and_is_charged_it(
    share: float, memory: float, asked: list[tuple[str, Any]]
) -> None:
    worker._share(share)
    try:
        assert asked == [("set_per_process_memory_fraction", pytest.approx(memory))]
        assert Meter(CPU).share == share
    finally:
        worker._share(1.0)


def test_a_worker_gives_the_memory_back_before_it_waits(asked: list[tuple[str, Any]]) -> None:
    """Once a run: its next trial may come after minutes, or never."""

    def epochs() -> Generator[RunRecord]:
        yield from ()

    trial = object.__new__(worker.Activation)
    trial.cleanup()
    assert asked == []  # its setup failed
    trial.epochs, trial.until, trial.over = epochs(), None, False
    assert trial.step() == {"epoch": 0, "done": True}
    trial.cleanup()
    assert [name for name, *_ in asked] == ["empty_cache"]


def test_without_a_gpu_nothing_of_one_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("there is no GPU"))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda _: pytest.fail("there is no GPU"))
    worker._share(1.0)
    release_memory()


SAID = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "backend='inductor' raised:\nRuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB",
]


@pytest.mark.parametrize("said", SAID)
def test_what_a_library_says_of_a_full_gpu_is_out_of_memory(said: str) -> None:
    with pytest.raises(OutOfMemory, match=r"^out of memory on the GPU$"), out_of_memory_named():
        raise RuntimeError(said)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^CUDA error: an illegal"), out_of_memory_named():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


class OnGPU:
    """A parameter, as `AdamW.build` looks at it."""

    def __init__(self, ndim: int, is_cuda: bool) -> None:
        self.ndim, self.is_cuda = ndim, is_cuda


@pytest.mark.parametrize(("where", "fused"), [([True, True], True), ([False, False], None), ([True, False], None)])
def test_the_optimizer_is_fused_where_all_weights_are_on_a_gpu(
    where: list[bool], fused: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **settings: given.update(settings))
    parameters = [OnGPU(2 - number, on_gpu) for number, on_gpu in enumerate(where)]
    model: Any = type("Model", (), {"parameters": lambda self: iter(parameters)})()
    AdamW().build(model)
    assert given["fused"] is fused


def test_a_fused_state_goes_on_where_the_step_is_not_and_the_other_way_round() -> None:
    """A run that began before, or on another device, goes on as it began."""

    def trained(optimizer: torch.optim.Optimizer, model: nn.Linear) -> Tensor:
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        return model.weight.detach().clone()

    torch.manual_seed(0)
    start = nn.Linear(4, 3, bias=False).state_dict()
    found = []
    for first, then in ((True, None), (None, True), (None, None)):
        model = nn.Linear(4, 3, bias=False)
        model.load_state_dict(start)
        before = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=first)
        trained(before, model)
        after = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=then)
        after.load_state_dict(before.state_dict())
        assert after.param_groups[0]["fused"] is first
        found.append(trained(after, model))
    assert torch.allclose(found[0], found[2], atol=1e-6) and torch.equal(found[1], found[2])


@pytest.mark.parametrize("fused", [True, None])
def test_a_fused_step_is_scaled_back_once_and_left_out_where_a_gradient_is_infinite(fused: bool | None) -> None:
    """In the loop's order of calls under fp16: the scaler's part that a fused optimizer does by itself."""
    torch.manual_seed(0)
    model, plain = nn.Linear(4, 3), nn.Linear(4, 3)
    plain.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
    reference, scaler = torch.optim.AdamW(plain.parameters(), lr=1e-2), torch.amp.GradScaler("cpu")
    for number in range(4):
        images = torch.randn(5, 4) * (math.inf if number == 2 else 1.0)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(model(images).square().mean()))
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if number != 2:
            reference.zero_grad(set_to_none=True)
            torch.autograd.backward(plain(images).square().mean())
            reference.step()
    assert torch.allclose(model.weight, plain.weight, atol=1e-6)
    assert scaler.get_scale() == 2.0**15, "halved once"


def test_batches_for_a_gpu_are_pinned_in_a_thread_and_copied_without_waiting(
    tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, moved = open_data(tiny.data).train, []

    def to(tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        moved.append((device, non_blocking, getattr(tensor, "pinned_by", None)))
        return tensor

    def pin(tensor: Tensor) -> Tensor:
        tensor.pinned_by = threading_name()  # type: ignore[attr-defined]
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    batches = list(ordered_batches(part, 16, CUDA))
    assert [len(batch.rows) for batch in batches][:2] == [16, 16]
    assert {(device, blocking) for device, blocking, _ in moved} == {(CUDA, True)}
    assert threading_name() not in {by for *_, by in moved} and None not in {by for *_, by in moved}


def threading_name() -> str:
    return threading.current_thread().name


def test_a_blocks_logits_leave_the_device_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    cpu = Tensor.cpu

    def to_cpu(tensor: Tensor) -> Tensor:
        left.append(len(tensor))
        return cpu(tensor)

    monkeypatch.setattr(Tensor, "cpu", to_cpu)
    logits = [torch.randn(number, 3) for number in (64, 64, 7)]
    found = logit_store._half(iter(logits))
    assert left == [135] and found.dtype == np.float16
    assert np.array_equal(found, torch.cat(logits).half().numpy())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(SAID[2])])
def test_a_final_training_that_runs_out_of_memory_is_tried_with_half_the_images(
    error: Exception,
    tiny: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished_study("s", tiny, [{"optimizer.lr": 1e-3}], (1.0,))
    write_best("s", tmp_path / "best.yaml")
    plain: Callable[..., Iterator[EpochResult]] = loop.train

    def train(recipe: RunConfig, *given: Any, **more: Any) -> Iterator[EpochResult]:
        if recipe.micro_batch is None:
            raise error
        yield from plain(recipe, *given, **more)

    monkeypatch.setattr(trainables.baseline, "train", train)
    code, _, err = call(capsys, "train", str(tmp_path / "best.yaml"), "--name", "m", "--set", "epochs=1")
    assert code == 0, err
    assert "out of memory on the GPU; tried again with 8 images at once" in err
    record = RunRecord.load(model_folder("m"))
    assert (record.status, record.micro_batch, len(record.epochs)) == ("finished", 8, 1)


def test_neither_torch_nor_its_compiler_is_needed_to_follow_a_run() -> None:
    code = "import sys, xlite_search.execution; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_producer_is_the_loaders_own(tiny: RunConfig) -> None:
    """On a CPU nothing is pinned and no thread is there."""
    (batch, *_) = workers._on(CPU, lambda: ordered_batches(open_data(tiny.data).train, 16, CPU))
    assert isinstance(batch, Batch) and not batch.images.is_pinned()
