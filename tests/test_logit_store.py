"""Each view is asked about once, whoever asks and whoever is killed; no wrong answer is ever read."""

from __future__ import annotations

import multiprocessing.pool
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import places, storage
from xlite_search.config import RunConfig
from xlite_search.data.dataset import open_data
from xlite_search.data.loaders import ordered_batches
from xlite_search.distill import logit_store
from xlite_search.distill import teacher_logits as hearing
from xlite_search.distill.logit_store import LogitStore, rounded
from xlite_search.distill.losses import KD
from xlite_search.distill.teacher import load_teacher
from xlite_search.distill.teacher_logits import online_reason
from xlite_search.errors import BadInput, Damaged, RunFailed
from xlite_search.execution import follow
from xlite_search.model_folder import publish, read_model
from xlite_search.records import RunRecord

CPU = torch.device("cpu")


@pytest.fixture
def taught(tiny: RunConfig) -> RunConfig:
    """A student's config whose teacher is trained and published."""
    config = tiny.with_settings({"seed": 7, "epochs": 1, "loss": "weighted_bce"}).resolved()
    home = places.teacher_folder("kind")
    record = RunRecord(home, "kind", "teacher", "t", {}, config.model_dump(mode="json"))
    *_, record = follow(record, lambda begun: baseline(config, begun.resume_path()))
    publish(home, record, config.loss, open_data(config.data), {})
    return tiny.with_settings({"augment": "light"}).model_copy(update={"kd": KD(teacher="kind")})


def store_of(config: RunConfig) -> LogitStore:
    assert config.kd is not None
    about = read_model(places.teacher_folder(config.kd.teacher))
    return LogitStore.open(config.kd.teacher, about, open_data(config.data), config.augment)


class Asked:
    """The teacher, counting what it is shown."""

    def __init__(self, config: RunConfig) -> None:
        assert config.kd is not None
        self.teacher = load_teacher(config.kd.teacher, open_data(config.data).classes, CPU)
        self.images = 0
        self.batches = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.images += len(images)
        self.batches += 1
        return self.teacher(images)


def test_a_view_is_asked_once_and_read_as_it_was_answered(taught: RunConfig) -> None:
    ask, store = Asked(taught), store_of(taught)
    first = store.view(0, ask, CPU)
    assert ask.images == len(store.part) == store.computed
    again = store_of(taught).view(0, ask, CPU)
    assert ask.images == len(store.part)
    assert np.array_equal(first, again)
    assert store.views() == [0]
    direct = [
        rounded(ask.teacher(batch.images))
        for batch in ordered_batches(store.part, logit_store.INFERENCE_BATCH, CPU, augment=taught.augment, view=0)
    ]
    assert np.array_equal(first, torch.cat(direct).numpy())
    assert not np.array_equal(store.view(1, ask, CPU), first), "another view of the same images"
    assert store.size() == 2 * (store.blocks * logit_store.HEADER + len(store.part) * 14 * 2)


def test_in_the_stores_own_batches_stored_and_online_training_give_the_same_student_bit_for_bit(
    taught: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logit_store, "INFERENCE_BATCH", taught.batch_size)
    stored = [result.checkpoint_bytes() for result in distill(taught)]
    monkeypatch.setattr(hearing, "online_reason", lambda recipe, kd: "for the test")
    online = [result.checkpoint_bytes() for result in distill(taught)]
    assert stored == online


@pytest.mark.parametrize("batch_size", [5, 10, 33])
def test_in_other_batches_than_the_stores_an_answer_is_the_same_but_for_a_last_digit(
    taught: RunConfig, batch_size: int
) -> None:
    """Other kernels add up in another order: a float32 sum may then round to the next float16, and no further."""
    assert batch_size != logit_store.INFERENCE_BATCH
    store, ask = store_of(taught), Asked(taught)
    stored = torch.from_numpy(store.view(0, ask, CPU))
    batches = ordered_batches(store.part, batch_size, CPU, augment=taught.augment, view=0)
    online = torch.cat([rounded(ask.teacher(batch.images)) for batch in batches])
    step = torch.nextafter(stored.abs(), torch.tensor(torch.inf, dtype=torch.float16)) - stored.abs()
    assert ((online.float() - stored.float()).abs() <= step.float() + 1e-5).all()


@pytest.mark.parametrize("batch_size", [10, 16])
def test_in_other_batches_than_the_stores_the_students_agree_closely(
    taught: RunConfig, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    assert batch_size != logit_store.INFERENCE_BATCH
    config = taught.with_settings({"batch_size": batch_size})
    *_, stored = distill(config)
    monkeypatch.setattr(hearing, "online_reason", lambda recipe, kd: "for the test")
    *_, online = distill(config)
    assert stored.metrics["train/loss"] == pytest.approx(online.metrics["train/loss"], rel=1e-3)
    assert stored.metrics["val/auroc_macro"] == pytest.approx(online.metrics["val/auroc_macro"], abs=5e-3)


def test_whether_the_teacher_had_to_be_asked_changes_no_bit(taught: RunConfig) -> None:
    """Loading a teacher in the middle of an epoch must not move the student's random numbers."""
    dropped = taught.with_settings({"model": "mobilenetv3_small_050_none", "epochs": 1})
    (first,) = distill(dropped)
    (second,) = distill(dropped)
    assert (first.metrics["kd/computed"] > 0, second.metrics["kd/computed"]) == (True, 0)
    assert first.checkpoint_bytes() == second.checkpoint_bytes()


def test_what_was_computed_and_used_is_told_every_epoch(taught: RunConfig) -> None:
    images = len(open_data(taught.data).train)
    used = images // taught.batch_size * taught.batch_size
    for computed in (images, 0):
        metrics = [result.metrics for result in distill(taught)]
        assert [(m["kd/computed"], m["kd/used"]) for m in metrics] == [(computed, used)] * 3
        assert all((m["time/teacher_s"] > 0) == bool(computed) for m in metrics)
        assert all((m["time/teacher_saved_s"] > 0) == (not computed) for m in metrics)


def test_views_that_are_bounded_repeat_and_are_asked_no_more(taught: RunConfig) -> None:
    config = taught.with_settings({"augment.views": 2, "epochs": 4})
    asked = [result.metrics["kd/computed"] > 0 for result in distill(config)]
    assert asked == [True, True, False, False]
    assert store_of(config).views() == [0, 1]


def test_without_augmentation_one_view_is_all_there_is(taught: RunConfig) -> None:
    plain = taught.with_settings({"augment": None})
    assert [result.metrics["kd/computed"] > 0 for result in distill(plain)] == [True, False, False]


def test_a_sampler_that_repeats_reads_the_views_it_draws(taught: RunConfig) -> None:
    config = taught.with_settings({"sampler": "max_rarity", "augment.views": 3})
    assert [result.epoch for result in distill(config)] == [1, 2, 3]
    assert set(store_of(config).views()) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"mixup": 0.2}, "MixUp"),
        ({"sampler": "max_rarity"}, "several times an epoch"),
        ({"sampler": {"name": "max_rarity", "apply": "loss"}}, ""),
        ({"sampler": "max_rarity", "augment.views": 3}, ""),
        ({"sampler": "max_rarity", "augment": None}, ""),
    ],
)
def test_what_cannot_be_stored_is_asked_online_and_says_why(
    taught: RunConfig, settings: dict[str, Any], why: str
) -> None:
    config = taught.with_settings({**settings, "epochs": 1})
    assert config.kd is not None
    because = online_reason(config, config.kd)
    assert why in because
    assert bool(why) == bool(because)
    (result,) = distill(config)
    assert (result.metrics["kd/computed"] == result.metrics["kd/used"]) == bool(why)
    assert bool(list(places.teacher_folder("kind").glob("logits/*/*.f16"))) == (not why)


def test_a_hint_is_asked_online_and_says_why(taught: RunConfig) -> None:
    """How such a run is trained is in `test_teachers.py`, on images that are large enough for it."""
    config = taught.with_settings({"kd.hint": 1.0})
    assert config.kd is not None
    assert "features" in online_reason(config, config.kd)


def test_two_that_need_a_view_at_once_share_the_asking(taught: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks for the blocks that the other is not at; together they ask for every image once."""
    monkeypatch.setattr(logit_store, "INFERENCE_BATCH", 16)
    one, other = store_of(taught), store_of(taught)
    asks = Asked(taught), Asked(taught)
    pool = multiprocessing.pool.ThreadPool(2)
    found = pool.starmap(lambda store, ask: store.view(0, ask, CPU), zip((one, other), asks, strict=True))
    pool.close()
    assert one.blocks > 4
    assert np.array_equal(*found)
    assert asks[0].images + asks[1].images == len(one.part)
    assert one.computed + other.computed == len(one.part)
    assert min(one.computed, other.computed) > 0


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from tests.test_logit_store import Asked, store_of
from xlite_search.config import RunConfig
from xlite_search.distill import logit_store
logit_store.INFERENCE_BATCH = 16
config = RunConfig.model_validate_json(Path({config!r}).read_text())
ask, store = Asked(config), store_of(config)
def slowly(images):
    print(len(images), flush=True)
    return ask(images)
store.view(0, slowly, torch.device("cpu"))
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_killed_asker_costs_its_block_and_nothing_else(
    taught: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(logit_store, "INFERENCE_BATCH", 16)
    (tmp_path / "config.json").write_text(taught.model_dump_json())
    script = KILLED.format(root=str(Path(__file__).parents[1]), config=str(tmp_path / "config.json"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [int(next(process.stdout)) for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        shown += [int(line) for line in process.stdout]
    ask, store = Asked(taught), store_of(taught)
    store.view(0, ask, CPU)
    assert len(store.part) <= sum(shown) + ask.images <= len(store.part) + int(store.about["block"])
    assert not list(store.folder.glob("*.tmp"))
    store.verify(ask, CPU, None)


def test_memory_for_views_is_bounded(taught: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ask = store_of(taught), Asked(taught)
    monkeypatch.setattr(logit_store, "CACHE", 2 * len(store.part) * 14 * 2)
    for view in range(4):
        store.view(view, ask, CPU)
    assert list(store._read) == [2, 3]


def filled(taught: RunConfig) -> LogitStore:
    store = store_of(taught)
    store.view(0, Asked(taught), CPU)
    return store


def first_block(store: LogitStore) -> Path:
    return store.folder / "00000-0000.f16"


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-28])


def swap_blocks(path: Path) -> None:
    other = path.with_name("00000-0001.f16")
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


@pytest.mark.parametrize("spoil", [flip, cut, swap_blocks], ids=lambda spoil: spoil.__name__)
def test_a_spoilt_block_is_refused_by_name_and_asked_for_again_only_when_it_is_removed(
    taught: RunConfig, spoil: Callable[[Path], None]
) -> None:
    store = filled(taught)
    good = store.view(0, Asked(taught), CPU)
    spoil(first_block(store))
    ask = Asked(taught)
    for read in (lambda: store_of(taught).view(0, ask, CPU), lambda: store_of(taught).verify(ask, CPU, None)):
        with pytest.raises(Damaged, match=r"00000-0000.f16 is .*Remove it, and its logits are computed again"):
            read()
    assert ask.images == 0
    for block in (first_block(store), first_block(store).with_name("00000-0001.f16")):
        block.unlink()
    assert np.array_equal(store_of(taught).view(0, ask, CPU), good)


def test_a_block_of_another_store_is_refused(taught: RunConfig) -> None:
    other = filled(taught.with_settings({"augment": "medium"}))
    store = filled(taught)
    shutil.copy(first_block(other), first_block(store))
    with pytest.raises(Damaged, match="comes from elsewhere"):
        store_of(taught).view(0, Asked(taught), CPU)


@pytest.mark.parametrize("entry", ["teacher", "model", "computed_by", "input", "views", "classes", "data", "images"])
def test_a_store_that_was_put_there_by_hand_is_refused_with_what_differs(taught: RunConfig, entry: str) -> None:
    store = filled(taught)

    storage.write_manifest(store.folder / logit_store.MANIFEST, store.about | {entry: "another"})
    with pytest.raises(BadInput, match=rf"holds logits of another {entry} \(another\)"):
        store_of(taught)


@pytest.mark.parametrize("what", ["code", "torch", "timm"])
def test_answers_of_other_code_or_libraries_are_asked_for_again(
    taught: RunConfig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before = filled(taught)
    monkeypatch.setattr(logit_store, "computed_by", lambda: before.about["computed_by"] | {what: "another"})
    assert store_of(taught).views() == []
    assert before.views() == [0]


def signed(store: LogitStore, logits: np.ndarray[Any, np.dtype[np.float16]]) -> None:
    """Writes other answers with a good checksum: what only the teacher itself can find out."""
    for block in range(store.blocks):
        path = store._path(0, block)
        path.unlink(missing_ok=True)
        store._write(path, lambda block=block: logits[store._positions(block)])  # type: ignore[misc]


@pytest.mark.parametrize("what", ["shuffled images", "other order of labels", "another view", "other weights"])
def test_answers_that_are_not_the_teachers_are_found_by_asking_again(taught: RunConfig, what: str) -> None:
    store = filled(taught)
    ask = Asked(taught)
    right = store.view(0, ask, CPU)
    order = np.random.default_rng(0).permutation(len(right))
    wrong = {
        "shuffled images": right[order],
        "other order of labels": right[:, ::-1],
        "another view": store.view(1, ask, CPU),
        "other weights": (right * 1.5 + 0.2).astype(np.float16),
    }[what]
    store.verify(ask, CPU, None)
    signed(store, wrong)
    with pytest.raises(Damaged, match="the teacher gives other logits now for"):
        store_of(taught).verify(ask, CPU, None)


def test_the_teachers_auroc_from_its_answers_is_the_one_it_was_published_with(taught: RunConfig) -> None:
    store, ask = filled(taught), Asked(taught)
    recorded = read_model(places.teacher_folder("kind")).metrics["val/auroc_macro"]
    store.verify(ask, CPU, recorded)
    with pytest.raises(Damaged, match="validation AUROC is"):
        store.verify(ask, CPU, recorded + 0.01)


def test_a_teacher_that_answers_with_what_is_no_number_is_refused(taught: RunConfig) -> None:
    store = store_of(taught)
    with pytest.raises(RunFailed, match="logits are not finite"):
        store.view(0, lambda images: torch.full((len(images), 14), float("nan")), CPU)
    assert store.views() == []


def test_answers_that_no_float16_holds_are_its_largest() -> None:
    assert rounded(torch.tensor([1e6, -1e6, 0.1])).tolist() == [65504, -65504, pytest.approx(0.1, abs=1e-4)]


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
def test_an_infinite_answer_is_none(number: float) -> None:
    with pytest.raises(RunFailed, match="logits are not finite"):
        rounded(torch.tensor([[0.1, number]]))
