"""torch.compile of runs, with backends of ours that only write down what they are asked to compile."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIZE
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.distill.logit_store import INFERENCE_BATCH, LogitStore
from xlite_search.distill.losses import KD
from xlite_search.distill.teacher_logits import logits_for, verify
from xlite_search.errors import BadInput
from xlite_search.execution import follow
from xlite_search.model_folder import publish, read_model
from xlite_search.records import RunRecord
from xlite_search.training import compiling
from xlite_search.training.compiling import CACHE, compile_model, forget, whole_batches_only

CPU = torch.device("cpu")
Asked = list[tuple[int, bool]]


@pytest.fixture(autouse=True)
def no_cache_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variable is as it was after each test, and so is torch."""
    monkeypatch.setenv(CACHE, "")
    monkeypatch.delenv(CACHE)
    yield
    forget()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Images of the batches that code was made for, and whether gradients are wanted of it; computed uncompiled."""
    found: Asked = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        images = next(each for each in inputs if isinstance(each, Tensor) and each.shape[-2:] == (SIZE, SIZE))
        found.append((len(images), torch.is_grad_enabled()))
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    return found


class Net(nn.Module):
    """All instances share `forward`, as all hybrids do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images)
        return logits


def test_all_runs_have_one_cache_and_the_users_own_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model(Net(3))
    assert os.environ[CACHE] == str(places.compiled_folder())
    monkeypatch.setenv(CACHE, str(tmp_path / "own"))
    compile_model(Net(3))
    assert os.environ[CACHE] == str(tmp_path / "own")


def test_a_gpu_without_triton_is_told_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"^compile = true: .*Triton.* or set compile to false$"):
        compile_model(Net(3))


def test_a_reused_process_compiles_its_ninth_model_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives up after eight versions of a function, in silence; here it fails instead."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setattr(dynamo, "fail_on_recompile_limit_hit", True)

    def nine_models(after_each: Callable[[], None]) -> None:
        for width in range(1, 10):
            net = Net(width)
            compile_model(net)
            net(torch.zeros(2, width))
            after_each()

    nine_models(forget)
    with pytest.raises(FailOnRecompileLimitHit):
        nine_models(lambda: None)


def test_a_run_is_compiled_for_its_whole_batches_alone(tiny: RunConfig, asked: Asked) -> None:
    """Once for training, once for validation, whose last batch is smaller; of the averaged weights, where there are
    such, for validation."""
    config = tiny.with_settings({"epochs": 2, "compile": True})
    val = len(open_data(config.data).val)
    assert val % config.batch_size and val > config.batch_size
    compiled = list(baseline(config))
    assert asked == [(16, True), (16, False)]
    plain = list(baseline(config.with_settings({"compile": False})))
    assert [each.metrics["train/loss"] for each in compiled] == [each.metrics["train/loss"] for each in plain]
    assert [each.metrics["val/loss"] for each in compiled] == [each.metrics["val/loss"] for each in plain]
    forget()
    asked.clear()
    list(baseline(config.with_settings({"ema": 0.9})))
    assert asked == [(16, True), (16, False)]


@pytest.fixture
def taught(tiny: RunConfig) -> RunConfig:
    """A compiled student's config whose teacher is trained and published."""
    config = tiny.with_settings({"seed": 7, "epochs": 1}).resolved()
    home = places.teacher_folder("kind")
    record = RunRecord(home, "kind", "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    publish(home, record, config.loss, open_data(config.data), {})
    student = tiny.with_settings({"compile": True, "epochs": 1})
    return student.model_copy(update={"kd": KD(teacher="kind", alpha=0.5)})


def test_a_teachers_bulk_pass_is_compiled_at_its_own_batch_size(taught: RunConfig, asked: Asked) -> None:
    """What is left over of a block is not, and the logits are a store's of their own."""
    data, kd = open_data(taught.data), taught.kd
    assert kd is not None
    about = read_model(places.teacher_folder("kind"))
    stores = {
        compiled: LogitStore.open("kind", about, data, taught.augment, compiled=compiled) for compiled in (True, False)
    }
    assert stores[True].folder != stores[False].folder and "compiled" not in stores[False].about
    given = {}
    for compiled, store in stores.items():
        teacher = logits_for(taught.with_settings({"compile": compiled}), kd, data, CPU)
        (batch,) = [batch for batch in _batches(taught) if len(batch.rows) == INFERENCE_BATCH][:1]
        given[compiled] = teacher(batch).numpy()
        assert not store.missing(0) and len(store.part) % INFERENCE_BATCH
    assert asked == [(INFERENCE_BATCH, False)]
    assert np.array_equal(given[True], given[False])
    verify(taught, kd, data, CPU)


def _batches(config: RunConfig) -> Iterator[Any]:
    from xlite_search.data.loaders import ordered_batches

    return ordered_batches(open_data(config.data).train, INFERENCE_BATCH, CPU)


def test_a_compiled_student_learns_from_a_compiled_teacher_what_the_plain_one_does(
    taught: RunConfig, asked: Asked
) -> None:
    """Stored logits, and online ones: with MixUp."""
    for mixup in (0.0, 0.4):
        forget()
        plain, compiled = (
            [each.metrics["train/loss"] for each in distill(taught.with_settings({"compile": compile, "mixup": mixup}))]
            for compile in (False, True)
        )
        assert plain == compiled and asked


def test_an_uncompiled_run_loads_no_compiler() -> None:
    code = (
        "import sys, torch\nfrom xlite_search.training.compiling import forget, whole_batches_only\n"
        "before = 'torch._dynamo' in sys.modules\nforget()\n"
        "with whole_batches_only(3, 4, compiled=False): pass\n"
        "assert ('torch._dynamo' in sys.modules) == before == False"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


INDUCTOR = """
import sys, torch
from torch import nn
from torch._dynamo.utils import counters
from xlite_search.training.compiling import compile_model
torch.set_num_threads(1)
model = nn.Linear(8, 2)
compile_model(model)
model(torch.zeros(4, 8)).sum().backward()
found = counters["inductor"]
print(found["fxgraph_cache_hit"], found["fxgraph_cache_miss"], counters["aot_autograd"]["autograd_cache_hit"])
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled() -> None:
    said = [
        subprocess.run([sys.executable, "-c", INDUCTOR], check=True, capture_output=True, text=True, timeout=500).stdout
        for _ in range(2)
    ]
    first, second = ([int(each) for each in out.split()] for out in said)
    assert first[0] == 0 and first[1] > 0
    assert second[0] > 0 and second[1] == 0 and second[2] > 0
    assert any(places.compiled_folder().iterdir())


def test_whole_batches_are_left_as_they_are() -> None:
    with whole_batches_only(4, 4, compiled=True) as untouched:
        assert untouched is None
