"""When the last run ends, by hand and against bounds that nothing can beat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlite_search.search.makespan import CUT_S, Todo, cuts, makespan

RUNS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)).map(lambda run: Todo(*run)), min_size=1, max_size=9)


def equal(count: int, epochs: int, epoch_s: float = 10.0) -> list[Todo]:
    return [Todo(epochs, epoch_s)] * count


def test_by_hand() -> None:
    def ends(*epochs: int, workers: int = 2) -> float:
        return makespan([Todo(n, 1.0) for n in epochs], workers)

    assert [ends(3, 3, 3), ends(5, 4, 3, 2), ends(workers=3), ends(4, workers=9), ends(2, 3, 3, 2)] == [6, 7, 0, 4, 5]
    assert makespan([Todo(n, 1.0) for n in (2, 2, 4)], 2, ordered=True) == 6  # 2 and 2, and then 4
    # 1.5 and 3.5 on one worker, 3.5 and 2.5 on the other
    assert makespan([Todo(3, 1.0, begin_s=0.5)] * 3, 2, {2: 1}) == 6


@pytest.mark.parametrize(
    ("runs", "workers", "first", "whole", "cut"),
    [
        # 4.5 epochs each: the second of the three is trained for 1.5 epochs, 2 when rounded to even, first
        (equal(3, 3), 2, {1: 2}, 60, 50),
        (equal(3, 4), 2, {1: 2}, 80, 60),
        (equal(5, 8), 4, {1: 6, 2: 4, 3: 2}, 160, 100),
        (equal(5, 8), 2, {2: 4}, 240, 200),
        (equal(4, 8), 2, {}, 160, 160),
        (equal(2, 8), 4, {}, 80, 80),
        (equal(3, 1), 2, {}, 20, 20),
    ],
)
def test_who_does_not_fit_is_cut(
    runs: list[Todo], workers: int, first: dict[int, int], whole: float, cut: float
) -> None:
    assert cuts(runs, workers) == first
    assert makespan(runs, workers) == whole
    assert makespan(runs, workers, first) == cut


def test_a_cut_that_saves_less_than_it_costs_is_none() -> None:
    assert cuts(equal(3, 4, epoch_s=CUT_S * 0.49), 2) == {}
    assert cuts(equal(3, 4, epoch_s=CUT_S * 0.51), 2) == {1: 2}
    assert cuts([Todo(4, 1.0, begin_s=100.0)] * 3, 2) == {}


@given(RUNS, st.integers(1, 4))
def test_no_run_is_lost_and_no_worker_does_two_things(runs: list[Todo], workers: int) -> None:
    """Between what nothing can beat, and what handing out whole runs takes (Graham 1969)."""
    least = max([sum(run.seconds for run in runs) / workers, *(run.seconds for run in runs)])
    first = cuts(runs, workers)
    assert len(first) < workers
    assert all(0 < epochs < runs[place].epochs for place, epochs in first.items())
    whole, cut = makespan(runs, workers), makespan(runs, workers, first)
    assert least - 1e-9 <= cut <= whole <= least + max(run.seconds for run in runs)
    assert whole - cut >= CUT_S * len(first)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(4, 30))
def test_equal_runs_end_within_an_epoch_or_two_of_the_best(count: int, workers: int, epochs: int) -> None:
    runs = equal(count, epochs)
    best = max(count * epochs / workers, epochs)
    assert makespan(runs, workers, cuts(runs, workers)) <= 10 * (best + workers)
