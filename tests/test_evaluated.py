"""Tables of what a model reaches: what has no interval has a dash, and the table says why."""

from __future__ import annotations

import math

from xlite_search.evaluation.evaluated import Evaluated
from xlite_search.evaluation.subgroups import Subgroup, Subgroups
from xlite_search.results.columns import Table
from xlite_search.results.intervals import Interval

AREA = Interval(0.8, 0.7, 0.9, 0.01)
NO_SUBGROUPS = Subgroups((), (), {}, {})


def judged(**figures: Interval) -> Evaluated:
    about = {"model": "m", "on": "test", "look": None, "by_now": 1, "images": 100, "patients": 50, "auroc": AREA}
    return Evaluated(**about, figures=figures, findings=(), moved=(), success=(), subgroups=NO_SUBGROUPS)  # type: ignore[arg-type]


def means(of: Evaluated) -> Table:
    return next(each for each in of.tables() if isinstance(each, Table) and each.title == "means over findings")


def test_a_calibration_error_has_no_interval_and_the_table_says_why() -> None:
    table = means(judged(brier=AREA, ece=Interval(0.05, math.nan, math.nan, math.nan)))
    assert table.rows[-1] == ("calibration error", "0.0500", "-") and table.rows[0][2] == "0.7000 to 0.9000"
    assert table.notes == ["calibration error: of 15 bins of equal width; above 0 by luck alone, it has no interval"]
    assert means(judged(brier=AREA)).notes == []


def test_subgroups_say_over_how_many_findings_their_auroc_is() -> None:
    some = (Subgroup("sex", "F", 10, 5, 3, AREA), Subgroup("sex", "M", 10, 5, 3, AREA))
    table = next(iter(Subgroups(some, (), {"sex": ("Mass", "Edema")}, {}).tables()))
    assert "sex: mean AUROC of 2 findings" in table.notes
