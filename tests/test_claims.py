"""What is said of a study: intervals, ties, one sentence; and nothing where nothing can be said."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished import finished_study
from test_cli import call

from xlite_search import results
from xlite_search.config import RunConfig
from xlite_search.data.packed import PackedSet
from xlite_search.places import study_folder
from xlite_search.results.best import best, read_best, write_best
from xlite_search.results.compare import Comparison, compare, show, summary
from xlite_search.results.plain import as_json
from xlite_search.results.run_facts import study_pairs
from xlite_search.results.tables import closing_lines

TAUS = [{"kd.tau": tau} for tau in (1.0, 2.0, 4.0, 8.0)]
SEEDS = [{"kd.tau": tau, "seed": seed} for tau in (1.0, 4.0) for seed in (0, 1, 2)]


@pytest.fixture
def taught(tiny: RunConfig) -> RunConfig:
    return tiny.with_settings({"kd.teacher": "0123", "kd.alpha": 0.5, "data.split.ratios": [0.2, 0.7, 0.1]})


def four(taught: RunConfig) -> Comparison:
    """Three runs that tell the findings alike, and one that tells nothing."""
    finished_study("s", taught, TAUS, (2.0, 0.0, 2.0, 2.0))
    return compare(["s"])


def test_runs_of_one_seed_are_claims_about_weights(taught: RunConfig) -> None:
    claims = four(taught).claims
    assert claims is not None and claims.about == "weights"
    *tied, last = claims.arms
    assert [arm.standing.may_be_best for arm in claims.arms] == [True, True, True, False]
    assert (last.label, last.standing.verdict) == ("tau=2", "worse")
    assert {arm.standing.verdict for arm in tied[1:]} == {"cannot tell"}
    for arm in claims.arms:
        assert arm.interval.low < arm.score < arm.interval.high
        assert arm.standing.low <= arm.standing.gap <= arm.standing.high
    assert claims.winner.corrected < claims.winner.score
    assert (claims.winner.runs, claims.winner.scores) == (4, 8)


def test_the_sentence_can_be_signed(taught: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = four(taught)
    assert comparison.claims is not None
    images, patients = comparison.claims.images, comparison.claims.patients
    assert 1 < patients < images
    best = comparison.claims.arms[0]
    said = (
        f"On {images} validation images of {patients} patients, 3 of 4 runs cannot be told from the best, {best.label} "
        f"(val/auroc_macro {best.score:.4f}, 95 % {best.interval.low:.4f} to {best.interval.high:.4f}); 95 % for all "
        f"comparisons at once. One seed each: this is about these weights, not about their recipes."
    )
    assert comparison.claims.sentence() == said
    show(comparison)
    assert said in capsys.readouterr().out
    assert as_json(comparison)["claims"]["sentence"] == said
    assert said in summary("s")["comparison.md"].decode()


def test_the_table_marks_what_is_tied(taught: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    show(four(taught))
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if re.match(r"│ *\d", line)]
    assert [cells[1].strip() for cells in lines[:4]] == ["1 =", "2 =", "3 =", "4"]
    assert [cells[2].strip() for cells in lines[:4]][-1] == "2"
    assert ["worse" in "".join(cells) for cells in lines[:4]] == [False, False, False, True]


def test_settings_of_several_seeds_are_claims_about_the_recipe(
    taught: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_study("s", taught, SEEDS, (0.0, 0.1, 0.2, 2.0, 2.1, 2.2))
    comparison = compare(["s"])
    claims = comparison.claims
    assert claims is not None and claims.about == "recipe"
    best, other = claims.arms
    assert [(arm.label, len(arm.runs), arm.standing.verdict) for arm in claims.arms] == [
        ("tau=4", 3, "tied"),
        ("tau=1", 3, "worse"),
    ]
    assert best.score == pytest.approx(np.mean([claims.own[run.key].value for run in best.runs]))
    assert other.spread == pytest.approx(np.std([claims.own[run.key].value for run in other.runs], ddof=1))
    assert (
        claims.sentence().endswith("95 % for all comparisons at once.")
        and "of 2 settings tau=4 alone may be the best" in claims.sentence()
    )
    show(comparison)
    assert "over the seeds, on the same images: the recipe" in capsys.readouterr().out


def test_a_larger_margin_makes_ties_of_what_one_could_not_tell(taught: RunConfig) -> None:
    finished_study("s", taught, TAUS, (2.0, 2.0, 2.0, 2.0))
    verdicts = [
        {arm.standing.verdict for arm in found.claims.arms[1:]}
        for found in (compare(["s"]), compare(["s"], margin=1.0))
        if found.claims
    ]
    assert verdicts == [{"cannot tell"}, {"tied"}]


def test_a_single_run_has_an_interval_and_no_rival(taught: RunConfig) -> None:
    finished_study("s", taught, TAUS[:1], (2.0,))
    claims = compare(["s"]).claims
    assert claims is not None
    assert re.search(
        r"patients, .* has val/auroc_macro 0\.\d+, 95 % 0\.\d+ to 0\.\d+\. One seed each", claims.sentence()
    )


@pytest.mark.parametrize("settings", [TAUS, SEEDS])
def test_a_finding_of_a_single_patient_leaves_every_interval_unknown(
    taught: RunConfig, settings: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Few images validate. Nothing is claimed to be worse, and nothing is corrected; the table is there."""
    few = taught.with_settings({"data.split.ratios": [0.8, 0.1, 0.1]})
    finished_study("s", few, settings, (2.0, 0.0, 2.0, 2.0, 2.0, 2.0)[: len(settings)])
    comparison = compare(["s"])
    claims = comparison.claims
    assert claims is not None and len(claims.tied) == len(claims.arms)
    assert {arm.standing.verdict for arm in claims.arms[1:]} == {"cannot tell"}
    assert np.isnan(claims.winner.corrected)
    assert "95 % unknown" in claims.sentence()
    json.dumps(as_json(comparison), allow_nan=False)
    show(comparison)
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("gone", ["data", "predictions"])
def test_where_nothing_can_be_claimed_it_says_why(
    taught: RunConfig, phantom: PackedSet, gone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished_study("s", taught, TAUS, (2.0, 0.0, 2.0, 2.0))
    if gone == "data":
        (phantom.folder / "manifest.json").unlink()
    if gone == "predictions":
        run = study.run("tau=4")
        (run.folder / run.predictions[0].name).unlink()
    said = {"data": "is not prepared", "predictions": "predictions of tau=4"}[gone]
    comparison = compare(["s"])
    assert comparison.claims is None and said in comparison.unclaimed
    show(comparison)
    assert "no intervals, and no claim: " in capsys.readouterr().out
    assert as_json(comparison)["unclaimed"] == comparison.unclaimed


@pytest.mark.parametrize("metric", ["val/ap_macro", "val/f1_macro", "val/ap/Effusion", "val/auroc/Effusion"])
def test_claims_are_about_the_metric_that_a_study_is_ranked_by(
    taught: RunConfig, metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_study("s", taught.with_settings({"monitor": metric}), TAUS, (2.0, 0.0, 2.0, 2.0))
    comparison = compare(["s"])
    claims = comparison.claims
    assert claims is not None and claims.arms[-1].label == "tau=2" and claims.arms[-1].standing.verdict == "worse"
    for run in comparison.ranked:
        assert claims.own[run.key].value == pytest.approx(run.best_score(metric), abs=1e-3)
    (kind,) = {metric.split("/")[1].removesuffix("_macro")}
    for name, interval in claims.arms[0].findings.items():
        assert interval.low < interval.value < interval.high
        assert interval.value == pytest.approx(comparison.ranked[0].epochs[0][f"val/{kind}/{name}"], abs=1e-3)
    show(comparison)
    assert f"validation {kind.upper()} by finding" in capsys.readouterr().out


def test_runs_that_may_not_be_compared_have_intervals_of_their_own(taught: RunConfig) -> None:
    finished_study("s", taught, TAUS, (2.0, 0.0, 2.0, 2.0))
    finished_study("other", taught.with_settings({"batch_size": 8}), [{"kd.tau": 3.0}], (1.0,))
    comparison = compare(["s", "other"])
    claims = comparison.claims
    assert claims is not None and comparison.confounded and len(claims.arms) == 4
    (apart,) = (run for run in comparison.ranked if run.label == "tau=3" or run.config["batch_size"] == 8)
    assert claims.own[apart.key].low < apart.best_score(comparison.metric) < claims.own[apart.key].high
    assert len(claims.own) == 5 and claims.law is not None and len(claims.law.covariance) == 4
    pairs = study_pairs(comparison)
    assert all(np.isfinite(pair.low) == pair.found.fair for pair in pairs.pairs)


def test_a_study_ends_with_its_claim(taught: RunConfig) -> None:
    lines = list(closing_lines(four(taught)))
    assert any(line.startswith("Export it:") for line in lines)


def test_against_another_run(taught: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four(taught)
    code, out, _ = call(capsys, "compare", "s", "--against", "tau=2", "--json")
    assert code == 0
    found = json.loads(out)["against"]
    positives = [finding["positives"] for finding in found["findings"]]
    assert positives == sorted(positives) and found["against"] == "tau=2"
    frame = results.gaps(f"s/{found['run']}", "s/tau=2")
    assert frame["gap"].tolist() == [finding["gap"] for finding in found["findings"]]
    assert frame["verdict"].tolist() == [finding["verdict"] for finding in found["findings"]]
    assert (frame["auroc_a"] - frame["auroc_b"]).tolist() == pytest.approx(frame["gap"].tolist())
    assert (frame["p_max_t"] <= frame["p_holm"] + 0.02).all(), "the maximum knows that findings go together"
    code, out, _ = call(capsys, "compare", "s", "--against", "tau=2")
    assert code == 0 and f"{found['run']} against tau=2, the rarest finding first" in out
    best = found["run"]
    for name, said in (("tau=3", "has no run 'tau=3'"), (best, f"--against {best}: that is the best run itself")):
        code, _, err = call(capsys, "compare", "s", "--against", name)
        assert (code, said in err, err.count("\n")) == (2, True, 1), err


def test_against_a_run_on_other_images(taught: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    four(taught)
    finished_study("t", taught.with_settings({"data.split.seed": 1}), TAUS[:1], (2.0,))
    code, _, err = call(capsys, "compare", "s", "--against", "t/" + compare(["t"]).ranked[0].key)
    assert (code, "were validated on other images, and cannot be compared" in err) == (2, True), err


@pytest.mark.parametrize("kind", ["md", "tex", "csv", "parquet"])
def test_a_comparison_in_a_file(
    taught: RunConfig, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = four(taught)
    assert comparison.claims is not None
    file = tmp_path / f"table.{kind}"
    assert call(capsys, "compare", "s", "-o", str(file))[0] == 0
    if kind in ("md", "tex"):
        text = file.read_text()
        assert f"{comparison.claims.arms[0].score:.4f}" in text and text.count("worse") == 1 + ("worse beyond" in text)
        return
    frame = pd.read_csv(file) if kind == "csv" else pd.read_parquet(file)
    assert frame["verdict"].fillna("").tolist()[-1] == "worse"
    assert frame["tied_with_best"].tolist() == [True, True, True, False]
    assert ((frame["low"] < frame["val/auroc_macro"]) & (frame["val/auroc_macro"] < frame["high"])).all()


@pytest.mark.parametrize(
    ("output", "said"),
    [("t.xls", "expected a file that ends in .md, .tex, .csv, .parquet"), ("no/t.md", "there is no folder")],
)
def test_a_file_that_cannot_be_written_is_refused_first(
    output: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "compare", "no-study", "-o", str(tmp_path / output))
    assert (code, said in err, err.count("\n")) == (2, True, 1), err


def test_best_exports_the_setting_whose_mean_is_best_not_the_luckiest_seed(taught: RunConfig) -> None:
    finished_study("s", taught, SEEDS, (0.0, 0.1, 4.0, 2.0, 2.1, 2.2))
    comparison = compare(["s"])
    claims, luckiest = comparison.claims, comparison.ranked[0]
    assert claims is not None and luckiest.label == "tau=1 seed=2"
    found = best("s")
    assert found["config"]["kd"]["tau"] == 4 and found["trial"] != luckiest.key
    scores = [claims.own[run.key].value for run in claims.arms[0].runs]
    chosen = found["chosen"]
    assert (chosen["by"], chosen["seeds"], chosen["of"]) == ("mean over seeds", 3, 2)
    assert (chosen["mean"], chosen["sd"]) == pytest.approx((np.mean(scores), np.std(scores, ddof=1)))
    assert chosen["low"] < chosen["mean"] < chosen["high"] and chosen["corrected"] <= chosen["mean"]
    usual = claims.own[found["trial"]].value
    assert abs(usual - chosen["mean"]) == min(abs(score - chosen["mean"]) for score in scores)


def test_best_of_a_study_that_goes_on_says_so(
    taught: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished_study("s", taught, TAUS, (2.0, 0.0, 2.0, 2.0))
    replace(study.run("tau=2"), status="running").save()
    code, _, err = call(capsys, "best", "s", "-o", str(tmp_path / "best.yaml"))
    assert (code, err) == (0, "1 run of study 's' not over: a better one may come yet\n")
    assert read_best(tmp_path / "best.yaml")["chosen"]["unfinished"] == 1


def test_best_of_one_seed_says_that_it_was_chosen_by_its_score(taught: RunConfig, tmp_path: Path) -> None:
    comparison = four(taught)
    found = write_best("s", tmp_path / "best.yaml")
    assert found["trial"] == comparison.ranked[0].key
    assert (found["chosen"]["by"], found["chosen"]["of"], found["chosen"]["sd"]) == ("score", 4, None)
    assert found["chosen"]["corrected"] < found["score"]
    assert read_best(tmp_path / "best.yaml")["chosen"] == found["chosen"]
    text = (tmp_path / "best.yaml").read_text()
    older = re.sub(r"(?m)^chosen:\n( .*\n)+", "", text)
    assert older != text
    (tmp_path / "best.yaml").write_text(older)
    assert read_best(tmp_path / "best.yaml")["chosen"] is None


def test_a_study_whose_folder_was_copied_is_compared(taught: RunConfig) -> None:
    four(taught)
    shutil.copytree(study_folder("s"), study_folder("copy"))
    found = compare(["copy"])
    assert found.claims is not None and len(found.claims.arms) == 4


def test_the_seeds_of_an_arm_are_in_order_as_its_gaps_are(taught: RunConfig) -> None:
    finished_study("s", taught, SEEDS, (0.2, 0.1, 0.0, 2.0, 2.1, 2.2))
    for arm in as_json(compare(["s"]))["claims"]["arms"]:
        assert arm["seeds"] == [0, 1, 2]


def test_json_in_a_file_is_refused(taught: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four(taught)
    code, _, err = call(capsys, "compare", "s", "-o", str(tmp_path / "t.md"), "--json")
    assert (code, "-o and --json: one at a time" in err) == (2, True)
    assert call(capsys, "compare", "s", "-o", str(tmp_path / "t.md"), "--factor", "kd.tau")[0] == 0
    assert "pairs that compare" in (tmp_path / "t.md").read_text()


def test_a_teacher_that_is_gone_has_no_score_in_json_either(taught: RunConfig) -> None:
    study = finished_study("s", taught, TAUS, (2.0, 0.0, 2.0, 2.0))
    replace(study, teacher="0123").save()
    rows = as_json(compare(["s"]))["distillation"]["rows"]
    assert (rows[0]["kind"], rows[0]["score"]) == ("teacher", None)
    json.dumps(as_json(compare(["s"])), allow_nan=False)


@pytest.mark.parametrize("margin", ["nan", "inf", "-1"])
def test_a_margin_that_is_none_is_refused(taught: RunConfig, margin: str, capsys: pytest.CaptureFixture[str]) -> None:
    four(taught)
    code, _, err = call(capsys, "compare", "s", f"--margin={margin}")
    assert (code, err) == (2, f"error: --margin {margin}: expected a gap in AUROC, such as 0.002\n")
