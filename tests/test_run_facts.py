"""Our own runs through the guard: what their records and artifacts tell, and `compare --factor`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finished import finished_study
from test_cli import call

from xlite_search.config import RunConfig
from xlite_search.data.packed import PackedSet
from xlite_search.places import study_folder
from xlite_search.records import RunRecord, StoredFile
from xlite_search.results.compare import compare
from xlite_search.results.confounders import RunFacts, comparability
from xlite_search.results.pairs import pairs_of
from xlite_search.results.run_facts import of_comparison, study_pairs
from xlite_search.study_record import StudyRecord

MACHINE = {"gpu": "none", "cpu_capability": "AVX2", "torch": "2.1", "timm": "1.0", "numpy": "2.4"}
COMMAND = ("run", "search_spaces/loss_ablation.py", "--set", "epochs=3")


def a_run(study: str, key: str, settings: dict[str, Any], score: float, **more: Any) -> RunRecord:
    config = RunConfig().with_settings({"epochs": 3} | settings)
    folder = study_folder(study) / "trials" / key
    epoch = {"val/auroc_macro": score}
    run = RunRecord(
        folder, key, "trial", key, settings, config.model_dump(mode="json"), epochs=(epoch,) * 3, started=1.0, **more
    )
    return replace(run, bests=(StoredFile("b", "", 2),)).save()


def told(run: RunRecord, *machines: dict[str, str], images: int = 100) -> None:
    folder = run.folder / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    starts = [{"from_epoch": n, "machine": machine} for n, machine in enumerate(machines, start=1)]
    about = {"run": {"images": {"train": images, "val": 10}, "findings": {}}, "starts": starts}
    (folder / "environment.json").write_text(json.dumps(about))


def a_study(name: str, *runs: RunRecord, **more: Any) -> StudyRecord:
    definition = {"data": "d", "split": "s", "trials": {}, "code": "0123"}
    keys = tuple(run.close("finished", "").key for run in runs)
    record = StudyRecord(study_folder(name), name, "?", "t", "val/auroc_macro", definition, keys, maker="a:b 0123")
    return replace(record, command=COMMAND, **more).save()


def facts(*studies: str) -> dict[str, RunFacts]:
    return {run.name: run for run in of_comparison(compare(list(studies)))}


def test_what_was_really_done_is_told(runs: Path) -> None:
    first = a_run("s", "a", {"loss": "bce", "precision": "bf16"}, 0.8)
    told(first, MACHINE)
    second = a_run("s", "b", {"loss": "focal"}, 0.7, micro_batch=16)
    told(second, MACHINE, MACHINE | {"torch": "2.2"})
    a_study("s", first, second)
    a, b = facts("s")["a"], facts("s")["b"]
    assert a.provenance["steps"] == 3 * (100 // 32) and a.provenance["epochs_done"] == 3
    assert (a.provenance["device"], a.settings["precision"]) == ("cpu", "fp32"), "a CPU computes in fp32 alone"
    assert (a.settings["micro_batch"], b.settings["micro_batch"]) == (None, 16)
    assert (b.provenance["library.torch"], b.provenance["library.timm"]) == ("2.1, 2.2", "1.0")
    assert (a.provenance["chosen_from"], b.provenance["chosen_from"]) == (2, 1)
    found = comparability(a, b, a.swept)
    assert [each.name for each in found.named] == ["loss"]
    assert [each.words() for each in found.confounders] == ["micro_batch (none, 16)", "library.torch (2.1, 2.1, 2.2)"]


def test_pairs_of_a_study_are_about_what_it_sweeps(runs: Path) -> None:
    a_study("s", a_run("s", "a", {"loss": "bce", "seed": 1}, 0.8), a_run("s", "b", {"loss": "focal", "seed": 2}, 0.7))
    (pair,) = pairs_of(of_comparison(compare(["s"])), "val/auroc_macro").pairs
    assert [each.name for each in pair.found.named] == ["loss"] and pair.found.fair
    assert [each.name for each in pair.found.nuisances] == ["seed"]
    assert pair.gap == pytest.approx(0.1) and pair.verdict == "cannot tell"


def test_between_studies_only_what_both_sweep_is_asked_about(runs: Path) -> None:
    a_study("s", a_run("s", "a", {"loss": "bce"}, 0.8), a_run("s", "b", {"loss": "focal"}, 0.7))
    a_study("t", a_run("t", "c", {"loss": "bce", "mixup": 0.2}, 0.9))
    pairs = {(p.found.a, p.found.b): p for p in pairs_of(of_comparison(compare(["s", "t"])), "val/auroc_macro").pairs}
    assert [each.name for each in pairs["c", "b"].found.named] == ["loss"]
    assert [each.name for each in pairs["c", "b"].found.confounders] == ["mixup"]
    assert [each.words() for each in pairs["c", "a"].found.confounders] == ["mixup (0.2, 0)", "chosen_from (1, 2)"]
    assert pairs["c", "b"].instead == ("a", "b") and pairs["a", "b"].found.fair


def test_pairs_of_a_study_have_the_intervals_of_its_claims(phantom: PackedSet, tiny: RunConfig) -> None:
    rates = [{"optimizer.lr": rate, "seed": seed} for rate in (1e-3, 3e-3) for seed in (1, 2)]
    larger = tiny.with_settings({"data.split.ratios": [0.2, 0.7, 0.1]})
    finished_study("s", larger, rates, [0.2, 0.2, 3.0, 3.0])
    comparison = compare(["s"])
    pairs = {(pair.found.a, pair.found.b): pair for pair in study_pairs(comparison).pairs}
    assert len(pairs) == 6
    same = [pair for pair in pairs.values() if not pair.found.named]
    assert {pair.verdict for pair in pairs.values() if pair.found.named} == {"better"}, "the best comes first"
    assert len(same) == 2 and all(pair.found.about().startswith("the same settings but for seed") for pair in same)
    (best, *_), claims = comparison.ranked, comparison.claims
    assert claims is not None and claims.law is not None
    worst = comparison.ranked[-1]
    pair = pairs[comparison.labels([best])[0], comparison.labels([worst])[0]]
    assert pair.gap == pytest.approx(claims.own[best.key].value - claims.own[worst.key].value)
    assert pair.low < pair.gap < pair.high
    assert pair.sentence().split(":")[0].startswith(f"{pair.found.a} beats {pair.found.b} by 0.")


def test_code_that_was_accepted_on_the_way_is_told_of_those_that_ran_with_it(runs: Path) -> None:
    early, late = a_run("s", "a", {"loss": "bce"}, 0.8), a_run("s", "b", {"loss": "focal"}, 0.7)
    record = a_study("s", early, late)
    ended = RunRecord.load(early.folder).ended
    replace(RunRecord.load(late.folder), ended=ended + 100).save()
    change = "the code was 0123, is 4567: other in losses.py"
    replace(record, accepted=({"time": ended + 50, "changes": [change], "code": "4567"},)).save()
    a, b = facts("s")["a"], facts("s")["b"]
    assert (a.provenance["code"], b.provenance["code"]) == ("a:b 0123", "a:b 0123; 4567")
    assert [each.name for each in comparability(a, b, ["loss"]).confounders] == ["code"]


def test_a_record_of_another_version_is_read_as_it_is(runs: Path) -> None:
    run = a_run("s", "a", {"loss": "bce"}, 0.8)
    replace(run, config=run.config | {"forgotten": 1}).save()
    a_study("s", RunRecord.load(run.folder))
    assert facts("s")["a"].settings["forgotten"] == 1


def test_compare_names_the_confounder_and_the_command(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    a = a_run("s", "a", {"loss": "bce", "ema": 0.0}, 0.8)
    a_study("s", a, a_run("s", "b", {"loss": "focal", "ema": 0.9}, 0.7))
    code, out, _ = call(capsys, "compare", "s", "--factor", "loss")
    assert code == 0
    assert "a, b: not comparable: also differ in ema (0, 0.9)\n" in out
    command = "python -m xlite_search run search_spaces/loss_ablation.py --set epochs=3 --set ema=0.0 --set loss=focal"
    assert f"missing: a with loss focal: {command} --name s-loss-focal\n" in out
    code, out, _ = call(capsys, "compare", "s", "--json")
    (pair,) = json.loads(out)["pairs"]
    assert pair["named"] == {"loss": ["bce", "focal"], "ema": [0.0, 0.9]} and pair["confounders"] == {}
    assert "changed together" in pair["sentence"]


def test_where_one_of_the_runs_is_the_missing_one_it_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = [{"loss": loss, "ema": ema} for loss in ("bce", "focal") for ema in (0.0, 0.9)]
    a_study("s", *(a_run("s", f"{one['loss']}-{one['ema']}", one, 0.7 + n / 100) for n, one in enumerate(grid)))
    found = {(p.found.a, p.found.b): p for p in study_pairs(compare(["s"]), ["loss"]).pairs}
    crossed = found["focal-0.9", "bce-0.0"]
    assert crossed.verdict == "not comparable" and crossed.missing is None
    assert crossed.instead in (("focal-0.9", "bce-0.9"), ("focal-0.0", "bce-0.0"))
    assert found["focal-0.9", "bce-0.9"].verdict == "cannot tell" and found["focal-0.9", "bce-0.9"].instead == ()
    _, out, _ = call(capsys, "compare", "s", "--factor", "loss")
    assert f"also differ in ema (0.9, 0); compare {' with '.join(crossed.instead)} instead" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--factor", "kd.tua"], "--factor kd.tua: no run has such a setting"),
        (["--metric", "auc"], "--patients and --metric are for other people's runs"),
        (["--patients", "p.csv"], "--patients and --metric are for other people's runs"),
    ],
)
def test_bad_options_are_one_sentence(
    arguments: list[str], sentence: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_study("s", a_run("s", "a", {"loss": "bce"}, 0.8))
    code, out, err = call(capsys, "compare", "s", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and sentence in err
