"""What teaching once is worth: one KD grid three times, on the CPU of this machine.

    python benchmarks/kd_grid.py [--quick]

    (a) online   a plain Ray Tune script with plain torch, the teacher asked in every step of every trial
    (b) ours     `run` as it is: views, loader, store, checkpoints fsynced, metrics, MLflow
    (c) floor    the students alone on tensors in memory: no teacher, no loader, no Ray

All three train the same C students for E epochs on the same views of the same N images, two at a time on one thread
each, and judge them after every epoch. Time runs from the first trial's start: what Ray, its workers and MLflow take to
start is left out of (a) and (b), and printed. rho is the student's training rate over the teacher's inference rate,
both of one process while the other is busy too. V views are stored.

    ceiling                1 / (1 + rho V / (C E)): what (c)/(b) could be if nothing but the asking were added
    efficiency             (c)/(b) over the ceiling
    speedup                (a)/(b)
    speedup_vs_prediction  (a)/(b) over (1 + rho) / (1 + rho V / (C E))
    second_study           (c)/(b) of another grid with the same teacher, which asks it nothing
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import recording
from recording import Limit

ROOT = Path(__file__).parents[1]
STUDENT, TEACHER, DATA, SIZE = "mobilenetv3_small_050_none", "resnet18_none", "kd-bench", 64
AT_ONCE = 2
TAUS, ALPHAS, RATES, OTHER_ALPHAS = (1.0, 4.0), (0.3, 0.7), (1e-3, 3e-3), (0.4, 0.6)
LIMITS = {
    "efficiency": Limit(least=0.85),
    "speedup_vs_prediction": Limit(least=0.9),
    "second_study": Limit(least=0.85),
}


@dataclass(frozen=True)
class Case:
    images: int
    epochs: int

    @property
    def trials(self) -> int:
        return len(TAUS) * len(ALPHAS) * len(RATES)


WHOLE, QUICK = Case(images=2900, epochs=8), Case(images=400, epochs=2)


def measure(quick: bool) -> dict[str, float]:
    case = QUICK if quick else WHOLE
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(XLITE_RUNS=f"{folder}/runs", XLITE_DATA=f"{folder}/data", CUDA_VISIBLE_DEVICES="")
        sys.path.insert(0, str(ROOT))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return with_ratios(seconds_and_rates(case), case)


def seconds_and_rates(case: Case) -> dict[str, float]:
    from xlite_search.tracking import store

    teacher = prepared(case)
    floor, train_rate, teacher_rate, images = the_floor(case, teacher)
    began = time.perf_counter()
    store.connect()
    mlflow = time.perf_counter() - began
    ours, start, asked = our_grid(case, "first", teacher, ALPHAS)
    second, _, asked_again = our_grid(case, "second", teacher, OTHER_ALPHAS)
    online, start_online = plain_ray(case, teacher)
    assert asked == images * case.epochs, f"{asked} views asked"
    assert asked_again == 0, f"{asked_again} views asked again"
    return {
        "online_s": online,
        "ours_s": ours,
        "floor_s": floor,
        "second_s": second,
        "train_rate": train_rate,
        "teacher_rate": teacher_rate,
        "images": images,
        "start_ours_s": start,
        "start_online_s": start_online,
        "start_mlflow_s": mlflow,
    }


def with_ratios(found: dict[str, float], case: Case) -> dict[str, float]:
    """Prints what was found, and what follows from it."""
    rho = found["train_rate"] / found["teacher_rate"]
    views, runs = case.epochs, case.trials * case.epochs
    asking = rho * views / runs
    figures = {
        "efficiency": found["floor_s"] / found["ours_s"] * (1 + asking),
        "speedup": found["online_s"] / found["ours_s"],
        "speedup_vs_prediction": found["online_s"] / found["ours_s"] * (1 + asking) / (1 + rho),
        "second_study": found["floor_s"] / found["second_s"],
        "ceiling": 1 / (1 + asking),
        "predicted_speedup": (1 + rho) / (1 + asking),
        "rho": rho,
    }
    print(f"C = {case.trials} trials, E = {case.epochs} epochs, N = {found['images']:,.0f} images, V = {views} views")
    print(f"student {found['train_rate']:.0f} img/s, teacher {found['teacher_rate']:.0f} img/s: rho = {rho:.2f}")
    print(f"(a) online {found['online_s']:.1f} s, (b) ours {found['ours_s']:.1f} s, (c) floor {found['floor_s']:.1f} s")
    print(f"    a second study with the same teacher {found['second_s']:.1f} s, which asks it nothing")
    print(
        f"    left out: starting workers {found['start_ours_s']:.1f} s (b), {found['start_online_s']:.1f} s (a); ",
        end="",
    )
    print(f"MLflow's database {found['start_mlflow_s']:.1f} s")
    print(f"a/b = {figures['speedup']:.2f}, predicted {figures['predicted_speedup']:.2f}")
    print(f"c/b = {found['floor_s'] / found['ours_s']:.3f}, ceiling {figures['ceiling']:.3f}: ", end="")
    print(f"efficiency {figures['efficiency']:.3f}; of the second study c/b = {figures['second_study']:.3f}")
    return figures | found | {"trials": case.trials, "epochs": case.epochs, "views": views}


def base(case: Case) -> Any:
    from xlite_search.config import RunConfig
    from xlite_search.data.dataset import DataSpec
    from xlite_search.data.views import Light
    from xlite_search.training.optim import AdamW, Constant

    return RunConfig(
        model=STUDENT,
        data=DataSpec(name=DATA),
        epochs=case.epochs,
        augment=Light(),
        optimizer=AdamW(lr=1e-3),
        schedule=Constant(),
        early_stopping=None,
    )


def prepared(case: Case) -> str:
    """The phantoms and a teacher of one epoch; the folder of its model."""
    from trainables.baseline import baseline
    from xlite_search import places
    from xlite_search.data.dataset import open_data
    from xlite_search.data.prepare import prepare
    from xlite_search.data.sources.phantom import Phantom
    from xlite_search.execution import follow
    from xlite_search.model_folder import publish
    from xlite_search.records import RunRecord

    prepare(DATA, Phantom(images=case.images), SIZE)
    config = base(case).with_settings({"model": TEACHER, "epochs": 1, "augment": None, "threads": AT_ONCE}).resolved()
    home = places.model_folder("teacher")
    record = RunRecord(home, "t", "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    publish(home, record, config.loss, open_data(config.data), {})
    return str(home)


def grid() -> list[dict[str, float]]:
    return [{"tau": t, "alpha": a, "lr": r} for t in TAUS for a in ALPHAS for r in RATES]


def the_teacher(folder: str) -> Any:
    import safetensors.torch

    from xlite_search.models.hybrid import build_model

    model = build_model(TEACHER, classes=14)
    model.load_state_dict(safetensors.torch.load_file(f"{folder}/model.safetensors"))
    return model.eval().requires_grad_(False)


def the_floor(case: Case, teacher: str) -> tuple[float, float, float, int]:
    """Seconds of the students alone; images a second that one trains on, and that the teacher answers; images."""
    spawn = multiprocessing.get_context("spawn")
    together, told = spawn.Barrier(AT_ONCE), spawn.SimpleQueue()
    shares = [grid()[number::AT_ONCE] for number in range(AT_ONCE)]
    workers = [spawn.Process(target=students_alone, args=(case, teacher, share, together, told)) for share in shares]
    for worker in workers:
        worker.start()
    found = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = max(end for _, end, _, _, _ in found) - min(begin for begin, *_ in found)
    train, answers = (sum(each[place] for each in found) / AT_ONCE for place in (2, 3))
    return seconds, train, answers, found[0][4]


def students_alone(case: Case, teacher: str, share: list[dict[str, float]], together: Barrier, told: Any) -> None:
    """One process of the floor: views, labels and the teacher's logits are tensors in memory before it begins."""
    import torch

    from xlite_search.data.dataset import open_data
    from xlite_search.data.loaders import ordered_batches
    from xlite_search.distill.losses import KD
    from xlite_search.models.hybrid import build_model

    torch.set_num_threads(1)
    config, cpu = base(case), torch.device("cpu")
    data = open_data(config.data)
    model = the_teacher(teacher)
    views = [
        torch.cat([b.images.clone() for b in ordered_batches(data.train, 64, cpu, augment=config.augment, view=view)])
        for view in range(case.epochs)
    ]
    val = torch.cat([batch.images for batch in ordered_batches(data.val, 64, cpu)])
    labels = torch.from_numpy(data.train.labels)
    said = [torch.randn(len(labels), labels.shape[1]) for _ in views]
    with torch.no_grad():
        model(views[0][:64])  # what is done once, at the first batch, is no rate
        together.wait()
        began = time.time()
        for view in views[:2]:
            for images in torch.split(view, 64):
                model(images)
    answers = 2 * len(labels) / (time.time() - began)
    together.wait()
    began, training, size = time.time(), 0.0, config.batch_size
    for trial in share:
        torch.manual_seed(config.seed)
        student = build_model(STUDENT, classes=labels.shape[1])
        optimizer = config.optimizer.model_copy(update={"lr": trial["lr"]}).build(student)
        kd = KD(tau=trial["tau"], alpha=trial["alpha"])
        for images, heard in zip(views, said, strict=True):
            student.train()
            started = time.time()
            order = torch.randperm(len(labels))[: len(labels) // size * size]
            for of in order.view(-1, size):
                optimizer.zero_grad(set_to_none=True)
                logits = student(images[of])
                hard = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[of])
                torch.autograd.backward(kd(logits, heard[of], hard))
                optimizer.step()
            training += time.time() - started
            student.eval()
            with torch.no_grad():
                torch.cat([student(val[start : start + size]) for start in range(0, len(val), size)])
    ended = time.time()
    rate = len(share) * case.epochs * (len(labels) // size * size) / training
    told.put((began, ended, rate, answers, len(labels)))


def our_grid(case: Case, name: str, teacher: str, alphas: tuple[float, ...]) -> tuple[float, float, int]:
    """Seconds of the trials, and of what came before the first; views that the teacher was asked about."""
    from trainables.distill import distill
    from xlite_search.machine import Machine
    from xlite_search.search.engine import engine
    from xlite_search.search.plan import make_plan
    from xlite_search.search.runner import run
    from xlite_search.search.study import Study, grid_search

    space = {
        "kd.tau": grid_search(list(TAUS)),
        "kd.alpha": grid_search(list(alphas)),
        "optimizer.lr": grid_search(list(RATES)),
    }
    study = Study("?", distill, base(case), space, teacher=teacher)
    with engine(Machine(cpus=AT_ONCE)):
        began = time.time()
        done = run(make_plan(study, name))
        ended = time.time()
    runs = done.runs()
    assert all(record.status == "finished" for record in runs), [record.cause for record in runs]
    first = min(record.started for record in runs)
    asked = sum(epoch["kd/computed"] for record in runs for epoch in record.epochs)
    return ended - first, first - began, int(asked)


def plain_ray(case: Case, teacher: str) -> tuple[float, float]:
    """The same grid as one would write it with Ray Tune and torch: seconds of the trials, and before the first."""
    import ray
    from ray import tune

    ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        space = {"trial": tune.grid_search(grid()), "epochs": case.epochs, "teacher": teacher}
        space["started"] = f"{folder}/started"
        run_config = tune.RunConfig(storage_path=folder, verbose=0)
        tune_config = tune.TuneConfig(reuse_actors=True)
        trial = tune.with_resources(online_trial, {"CPU": 1})
        done = tune.Tuner(trial, param_space=space, run_config=run_config, tune_config=tune_config).fit()
        ended = time.time()
        assert not done.errors
        first = min(float(line) for line in Path(f"{folder}/started").read_text().split())
    ray.shutdown()
    return ended - first, first - began


def online_trial(config: dict[str, Any]) -> None:
    """A student that asks its teacher in every step."""
    import numpy as np
    import torch
    from ray import tune
    from torch.utils.data import DataLoader, Dataset

    from xlite_search.data.dataset import open_data
    from xlite_search.data.sources import image_key
    from xlite_search.data.views import Views
    from xlite_search.distill.losses import soft
    from xlite_search.models.hybrid import build_model
    from xlite_search.training.metrics import auroc

    torch.set_num_threads(1)
    trial, settings = config["trial"], base(Case(0, config["epochs"]))
    data = open_data(settings.data)
    names, pixels = data.packed.table.names, np.asarray(data.packed.pixels)[:, 0]

    class Images(Dataset[Any]):
        def __init__(self, part: Any, augment: bool) -> None:
            self.part, self.views, self.epoch = part, Views(settings.augment) if augment else None, 0

        def __len__(self) -> int:
            return len(self.part)

        def __getitem__(self, place: int) -> tuple[Any, Any]:
            row = int(self.part.rows[place])
            image = pixels[row]
            if self.views is not None:
                image = self.views(image, image_key(names[row]), self.epoch)
            return torch.from_numpy(image)[None], torch.from_numpy(self.part.labels[place])

    torch.manual_seed(settings.seed)
    student, teacher = build_model(STUDENT, classes=14), the_teacher(config["teacher"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=trial["lr"])
    train, val = Images(data.train, True), Images(data.val, False)
    batches = DataLoader(train, batch_size=settings.batch_size, shuffle=True, drop_last=True)
    with open(config["started"], "a") as file:
        file.write(f"{time.time()}\n")
    for epoch in range(config["epochs"]):
        train.epoch = epoch
        student.train()
        for images, labels in batches:
            logits = student(images)
            with torch.no_grad():
                said = teacher(images)
            hard = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
            loss = trial["alpha"] * soft(logits, said, trial["tau"]) + (1 - trial["alpha"]) * hard
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        student.eval()
        with torch.no_grad():
            answered = torch.cat([student(images) for images, _ in DataLoader(val, batch_size=settings.batch_size)])
        tune.report({"auroc": float(np.nanmean(auroc(answered.numpy(), data.val.labels)))})


if __name__ == "__main__":
    recording.run("kd_grid", __doc__, measure, LIMITS)
