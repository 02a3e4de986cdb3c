from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlite_search import storage
from xlite_search.config import RunConfig
from xlite_search.data.dataset import Batch, Data, DataSpec, Part, open_data
from xlite_search.data.loaders import Loader, ordered_batches
from xlite_search.data.packed import PackedSet
from xlite_search.data.samplers import MaxRarity, MeanRarity
from xlite_search.data.sources import image_key
from xlite_search.data.views import Augment, Light, Medium, Strong, Views
from xlite_search.data.workers import _ahead
from xlite_search.errors import XliteError

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(tiny: RunConfig) -> Data:
    return open_data(tiny.data)


def loader(part: Part, batch_size: int = 16, **how: object) -> Loader:
    return Loader(part, batch_size, **({"seed": 0, "device": CPU} | how))  # type: ignore[arg-type]


def rows_of(batches: Iterator[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.rows]


def digest_of(batches: Iterator[Batch]) -> str:
    """Everything that a training would see."""
    found = [[b.images.numpy().tobytes().hex(), b.labels.tolist(), b.rows.tolist(), b.views.tolist()] for b in batches]
    return storage.digest(found)


def test_the_order_depends_on_seed_and_epoch_only(data: Data) -> None:
    def order(batch_size: int, seed: int, epoch: int) -> list[int]:
        return rows_of(loader(data.train, batch_size, seed=seed).epoch(epoch))

    one = order(16, 0, 1)
    torch.manual_seed(5)
    np.random.seed(5)
    assert order(16, 0, 1) == one
    assert order(8, 0, 1)[: len(one)] == one
    assert order(16, 0, 2) != one
    assert order(16, 1, 1) != one
    assert len(one) == len(set(one)) == len(data.train) // 16 * 16
    assert set(one) <= set(data.train.rows.tolist())


def test_batches_carry_the_images_and_labels_of_their_rows(data: Data, phantom: PackedSet) -> None:
    batch = next(loader(data.train).epoch(1))
    assert batch.images.dtype == torch.uint8
    assert np.array_equal(batch.images.numpy(), phantom.pixels[batch.rows])
    assert np.array_equal(batch.labels.numpy(), phantom.table.labels[batch.rows])
    assert batch.weights is None
    assert not batch.views.any()
    seen = np.concatenate([b.rows for b in ordered_batches(data.val, 16, CPU)])
    assert np.array_equal(seen, data.val.rows)


def test_a_batch_that_holds_everything_is_kept(data: Data) -> None:
    (batch,) = loader(data.train, 1000).epoch(1)
    assert sorted(batch.rows.tolist()) == data.train.rows.tolist()


@pytest.mark.parametrize("augment", [Light(), Medium(), Strong(views=2)])
def test_batches_hold_the_views_that_they_say(augment: Augment, data: Data, phantom: PackedSet) -> None:
    views = Views(augment)
    for epoch in (1, 2, 3):
        batch = next(loader(data.train, augment=augment).epoch(epoch))
        assert set(batch.views.tolist()) == {(epoch - 1) % (augment.views or 100)}
        for image, row, view in zip(batch.images, batch.rows.tolist(), batch.views.tolist(), strict=True):
            key = image_key(phantom.table.names[row])
            assert np.array_equal(image[0].numpy(), views(phantom.pixels[row, 0], key, view))


def test_validation_images_are_never_augmented(data: Data, phantom: PackedSet) -> None:
    for batch in ordered_batches(data.val, 16, CPU):
        assert np.array_equal(batch.images.numpy(), phantom.pixels[batch.rows])


def test_workers_do_not_change_a_byte(data: Data) -> None:
    """0, 1 and 2 workers, several epochs, and an epoch that was left in the middle, as a resumed run starts anew."""
    alone = loader(data.train, sampler=MeanRarity(), augment=Medium())
    expected = {epoch: digest_of(alone.epoch(epoch)) for epoch in (1, 2, 3)}
    assert len(set(expected.values())) == 3
    for workers in (1, 2):
        several = loader(data.train, sampler=MeanRarity(), augment=Medium(), workers=workers)
        state = torch.get_rng_state()
        assert digest_of(several.epoch(2)) == expected[2]
        left = several.epoch(1)
        next(left)
        left.close()
        assert digest_of(several.epoch(3)) == expected[3]
        assert torch.equal(torch.get_rng_state(), state)  # or dropout would depend on the workers
        several.close()


def test_workers_end_with_their_loader(data: Data) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    several = loader(data.train, augment=Light(), workers=2)
    next(several.epoch(1))
    started = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    assert len(started) >= 2
    several.close()
    several.close()
    _, alive = psutil.wait_procs([c for c in started if "resource_tracker" not in " ".join(_command(c))], timeout=20)
    assert alive == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_an_error_in_a_worker_is_raised_here(data: Data, phantom: PackedSet) -> None:
    several = loader(data.train, augment=Light(), workers=1)
    assert several.workers is not None
    several.part = Part(phantom, data.train.rows + 10_000)
    with pytest.raises(RuntimeError, match="IndexError"):
        next(several.epoch(1))
    several.close()


def test_a_killed_worker_is_told_in_a_sentence(data: Data) -> None:
    several = loader(data.train, 8, augment=Light(), workers=2)
    batches = several.epoch(1)
    next(batches)
    assert several.workers is not None
    next(iter(several.workers.processes.values())).kill()
    with pytest.raises(XliteError, match="was ended from outside"):
        list(batches)
    several.close()


def test_another_process_with_other_threads_sees_the_same_bytes(data: Data, phantom: PackedSet) -> None:
    code = (
        "import sys, cv2, torch\n"
        "sys.path.insert(0, 'tests')\n"
        "cv2.setNumThreads(2); torch.set_num_threads(2)\n"
        "from test_loaders import digest_of, loader\n"
        "from xlite_search.data.dataset import DataSpec, open_data\n"
        "from xlite_search.data.views import Strong\n"
        f"data = open_data(DataSpec(name={phantom.folder.name!r}))\n"
        "print(digest_of(loader(data.train, augment=Strong()).epoch(2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest_of(loader(data.train, augment=Strong()).epoch(2))


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([None, 1, 3]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_image_looks_the_same_in_every_batch_order_and_subset(
    data: Data, batch_size: int, seed: int, epoch: int, views: int | None
) -> None:
    """The pixels of a draw are a function of (image, view) alone."""
    augment = Medium(views=views)
    few = Part(data.packed, data.train.rows[:40])
    made = Views(augment)
    for batch in loader(few, batch_size, seed=seed, augment=augment, sampler=MaxRarity()).epoch(epoch):
        row, view = int(batch.rows[-1]), int(batch.views[-1])
        expected = made(data.packed.pixels[row, 0], image_key(data.packed.table.names[row]), view)
        assert np.array_equal(batch.images[-1, 0].numpy(), expected)


def test_an_image_that_is_drawn_often_is_another_view_each_time(data: Data) -> None:
    batches = list(loader(data.train, sampler=MaxRarity(), augment=Medium()).epoch(1))
    draws = [(int(r), int(v)) for b in batches for r, v in zip(b.rows, b.views, strict=True)]
    assert len(draws) == len(set(draws))
    assert len({row for row, _ in draws}) < len(draws)


def test_weights_of_the_loss_follow_their_images(data: Data) -> None:
    sampler = MeanRarity(apply="loss")
    weights = sampler.weights(data.train.labels.astype(np.uint8))
    place = {int(row): position for position, row in enumerate(data.train.rows)}
    seen = []
    for batch in loader(data.train, sampler=sampler).epoch(1):
        assert batch.weights is not None and batch.weights.dtype == torch.float32
        expected = [weights[place[int(row)]] / weights.mean() for row in batch.rows]
        assert batch.weights.tolist() == pytest.approx(expected)
        seen += batch.rows.tolist()
    assert len(seen) == len(set(seen))


def test_a_fraction_is_a_part_of_the_train_patients(phantom: PackedSet) -> None:
    whole = open_data(DataSpec(name=phantom.folder.name))
    part = open_data(DataSpec(name=phantom.folder.name, fraction=0.25))
    assert set(part.train.rows) < set(whole.train.rows)
    assert len(part.train) == pytest.approx(0.25 * len(whole.train), abs=4)
    assert np.array_equal(part.val.rows, whole.val.rows)
    assert part.split.fingerprint == whole.split.fingerprint


def test_batches_made_ahead_are_in_order_and_their_errors_arrive() -> None:
    def numbers(last: int) -> Iterator[Batch]:
        for number in range(last):
            yield Batch(torch.tensor(number), torch.tensor(0), np.array([]), np.array([]))
        raise ValueError("no more")

    ahead = _ahead(lambda: numbers(10))
    assert [int(next(ahead).images) for _ in range(10)] == list(range(10))
    with pytest.raises(ValueError, match="no more"):
        next(ahead)
