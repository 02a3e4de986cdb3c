"""What each switch of a GPU gives, and whether what is computed there is right.

    python benchmarks/gpu.py                    # or python -m benchmarks.gpu; under 8 minutes
    python -m benchmarks.gpu --check            # exit code 1 where a check fails, 2 without a GPU
    python benchmarks/gpu.py --quick --cpu      # the same code on tiny images and models, to see that it runs

draws phantoms, prepares them at 224 px, and trains two students and a teacher in the product's own loop, without Ray
and MLflow: with everything on but the compiler (bf16, channels last, fused AdamW, foreach norms, pinned prefetch), with
each of these off, with medium views, and the students compiled. Beside it a bare torch loop on tensors on the GPU.
The teacher's bulk pass is timed at three batch sizes and compiled, two trials at once on one GPU beside one, and the
first steps of a compiled run in a process that finds the cache empty, and in one that finds it filled.

    *_images_s   images a second
    *_gb         peak of the GPU's memory, as torch reserved it
    *_wh         Wh of the GPU for 1,000 images (NVML); 0 where there is no reading
    *_gain       rate with a switch by the rate without
    *_efficiency rate of the product's loop by that of the bare one

Rates have no limit, for they were never measured on a GPU: a limit would be a guess. What is checked: bf16's losses
after two epochs are fp32's within 1 %; a run that is resumed ends with the very weights of one that was not, by
deterministic kernels (`resume_default` says how far off torch's own choice is); a run whose batch does not fit is
halved and finished; stored teacher logits are the online ones within what their store allows, plain and compiled.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).absolute().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # `python -m benchmarks.gpu` has neither
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic kernels want it before CUDA starts

import recording
from recording import Limit

if TYPE_CHECKING:
    from xlite_search.config import RunConfig

STUDENTS = {"b0": "efficientnet_b0_mhsa", "small": "mobilenet_v3_small_mhsa"}
TEACHER, TAUGHT = "convnext_tiny_mhsa", "bench"
#: the case whose rate is above, and the one below, of each gain; a teacher is compiled in its bulk pass alone
GAINS = {
    "bf16": ("on", "fp32"),
    "channels_last": ("on", "contiguous"),
    "fused": ("on", "unfused"),
    "foreach": ("on", "norms"),
    "prefetch": ("on", "unpinned"),
    "compile": ("compiled", "on"),
}
LIMITS = {
    "bf16_loss_difference": Limit(most=0.01),
    "resume_difference": Limit(most=0),
    "oom_halved": Limit(least=1),
    "stored_difference": Limit(most=1),
    "compiled_stored_difference": Limit(most=1),
}


@dataclass(frozen=True)
class Shape:
    """How large a case is: pixels and images of the set, images of a batch, seconds for a rate."""

    size: int = 224
    images: int = 1280
    batch: int = 32
    seconds: float = 1.5
    students: Mapping[str, str] = field(default_factory=lambda: STUDENTS)
    teacher: str = TEACHER
    bulk: tuple[int, ...] = (64, 128, 256)
    backend: str = "inductor"


QUICK = Shape(images=480, seconds=0.3)
TINY = Shape(
    size=32,
    images=240,
    batch=16,
    seconds=0.0,
    students={"b0": "test_efficientnet_mhsa", "small": "test_efficientnet_none"},
    teacher="test_resnet_mhsa",
    bulk=(64, 96, 128),
    backend="eager",
)


def measure(quick: bool) -> Mapping[str, float]:
    import torch

    if not torch.cuda.is_available():
        raise recording.Skipped("torch sees no GPU here; `--quick --cpu` runs the same code on tiny images on the CPU")
    return measured(QUICK if quick else Shape())


def on_cpu(quick: bool) -> Mapping[str, float]:
    """A GPU is hidden from torch, which has not looked for one yet."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return measured(TINY)


def measured(shape: Shape) -> dict[str, float]:
    import gpu_checks

    with prepared(shape) as config:
        about()
        gpu_checks.write_teacher(config, shape.teacher, TAUGHT)
        found = machine_figures(shape)
        parts: list[Callable[[], dict[str, float]]] = [
            lambda: gpu_checks.checks(config),
            lambda: switches(config, shape),
            lambda: together(config, shape),
        ]
        for part in parts:
            found |= told(part())
        for short in shape.students:
            found[f"{short}_two_gain"] = found[f"{short}_two_images_s"] / found[f"{short}_on_images_s"]
    return found


@contextmanager
def prepared(shape: Shape) -> Iterator[RunConfig]:
    """The lab's recipe on a drawn set, in folders of its own."""
    from unittest import mock

    from xlite_search.config import RunConfig
    from xlite_search.data.dataset import DataSpec
    from xlite_search.data.prepare import prepare
    from xlite_search.data.sources.phantom import Phantom
    from xlite_search.distill.losses import KD
    from xlite_search.training import compiling
    from xlite_search.training.optim import AdamW

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        mock.patch.dict(os.environ, XLITE_RUNS=f"{folder}/runs", XLITE_DATA=f"{folder}/data"),
        mock.patch.object(compiling, "BACKEND", shape.backend),
    ):
        for elsewhere in ("XLITE_MACHINE", compiling.CACHE):
            os.environ.pop(elsewhere, None)
        prepare("gpu", Phantom(images=shape.images, size=max(64, shape.size)), shape.size)
        yield RunConfig(
            model=shape.students["b0"],
            data=DataSpec(name="gpu"),
            batch_size=shape.batch,
            optimizer=AdamW(lr=1e-4),
            early_stopping=None,
            precision="bf16",
            kd=KD(teacher=TAUGHT),
        )


def about() -> None:
    """Prints versions and the card."""
    from xlite_search.provenance import RESULT_LIBRARIES, environment

    found = environment()
    wanted = ("gpu", "driver", "cuda", "cudnn", "python", "platform", *RESULT_LIBRARIES)
    print(", ".join(f"{name} {found[name]}" for name in wanted))


def machine_figures(shape: Shape) -> dict[str, float]:
    import torch

    there = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else 0.0
    return {"size": shape.size, "images": shape.images, "batch": shape.batch, "card_gb": there}


def switches(config: RunConfig, shape: Shape) -> dict[str, float]:
    """Each model's training, and the teacher's bulk pass."""
    from gpu_switches import SWITCHES, bare, training

    found: dict[str, float] = {}
    for short, name in {**shape.students, "teacher": shape.teacher}.items():
        of = config.with_settings({"model": name})
        cases = {"bare": bare(of, shape.seconds)}
        for case, switch in SWITCHES.items():
            if short in shape.students or not switch.settings.get("compile"):
                cases[case] = training(of, switch, shape.seconds)
        for case, cost in cases.items():
            found |= cost.figures(f"{short}_{case}")
        for gain, (on, off) in GAINS.items():
            if on in cases:
                found[f"{short}_{gain}_gain"] = cases[on].rate / cases[off].rate
        found[f"{short}_efficiency"] = cases["on"].rate / cases["bare"].rate
        print(f"{short}: {cases['on'].rate:,.0f} images/s, {cases['bare'].rate:,.0f} in a bare loop", flush=True)
    return found | bulk_pass(config, shape)


def bulk_pass(config: RunConfig, shape: Shape) -> dict[str, float]:
    from gpu_switches import bare_bulk, bulk

    cases = {"bare": bare_bulk(config, shape.seconds)}
    cases |= {name: bulk(config, shape.seconds, batch=size) for name, size in zip("abc", shape.bulk, strict=True)}
    cases["compiled"] = bulk(config.with_settings({"compile": True}), shape.seconds)
    found = {f"bulk_{name}_batch": float(size) for name, size in zip("abc", shape.bulk, strict=True)}
    for name, cost in cases.items():
        found |= cost.figures(f"bulk_{name}")
    found["bulk_efficiency"] = cases["a"].rate / cases["bare"].rate
    return found | {"bulk_compile_gain": cases["compiled"].rate / cases["a"].rate}


def together(config: RunConfig, shape: Shape) -> dict[str, float]:
    """Two trials at once on one GPU; one cache of compiled code, of the smaller model in a batch size of its own."""
    from gpu_switches import at_once, first_compiled_s

    students = [config.with_settings({"model": name}) for name in shape.students.values()]
    rates = zip(shape.students, at_once(students, shape.seconds, 2), strict=True)
    found = {f"{short}_two_images_s": rate for short, rate in rates}
    fresh = config.with_settings({"model": shape.students["small"], "batch_size": shape.batch - 2})
    cold, warm = (first_compiled_s(fresh, shape.backend) for _ in range(2))
    return found | {"compile_cold_s": cold, "compile_warm_s": warm}


def told(figures: dict[str, float]) -> dict[str, float]:
    """The same: what was found is not lost with what comes after it."""
    for name, value in figures.items():
        print(f"  {name} {value:.4g}", file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    recording.run("gpu", __doc__, measure, LIMITS, on_cpu=on_cpu)
