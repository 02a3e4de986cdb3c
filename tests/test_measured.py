"""Measured figures in the documentation are those that the benchmarks wrote."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import figures
import pytest
import recording
from recording import Limit, Provenance

from xlite_search.errors import BadInput

WRITTEN = sorted(file.stem for file in recording.RECORDS.glob("*.json"))
THERE = Provenance("2026-11-01", "0123456789ab", True, 0.25, 0.01, "A CPU", 2, 7.8, "3.12.1", "2.10.0", 61)
TEMPLATE = "# Page\n\n<!-- measured -->\n- a: {a.speed:,.1f}\n- b: {b.speed}\n\n<!-- /measured -->\n\n{a.provenance}.\n"
README = "# Title\n\n<!-- measured -->\nformer\n<!-- /measured -->\n\nMore.\n"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where benchmarks write during a test; `a` and `b` are all there are."""
    monkeypatch.setattr(recording, "RECORDS", tmp_path / "kept")
    monkeypatch.setattr(recording, "names", lambda: ["a", "b"])
    return tmp_path / "kept"


def handed_over(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """What a benchmark that is run as a program gives to `recording.run`."""
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(recording, "run", lambda *arguments, **more: given.append(arguments))
    runpy.run_path(str(recording.HERE / f"{name}.py"), run_name="__main__")
    (arguments,) = given
    return arguments


def test_the_pages_are_made_of_what_was_written() -> None:
    template, readme = (path.read_text(encoding="utf-8") for path in (figures.TEMPLATE, figures.README))
    page = figures.PAGE.read_text(encoding="utf-8")
    assert (page, readme) == figures.pages(template, readme, figures.records()), "python benchmarks/figures.py"


def test_each_benchmark_was_measured() -> None:
    assert sorted(set(recording.names()) - (recording.WANTING.keys() - set(WRITTEN))) == WRITTEN


@pytest.mark.parametrize("name", recording.names())
def test_a_benchmark_hands_itself_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, about, measure, limits = handed_over(name, monkeypatch)
    assert given == name and callable(measure) and all(isinstance(limit, Limit) for limit in limits.values())
    assert f"python benchmarks/{name}.py" in about
    template = figures.TEMPLATE.read_text(encoding="utf-8")
    assert f"{{{name}.provenance}}" in template
    for figure in limits:
        assert f"{{{name}.{figure}.limit}}" in template and f"{{{name}.{figure}.held}}" in template


@pytest.mark.parametrize("name", WRITTEN)
def test_what_was_written_has_its_benchmark_and_the_limits_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in recording.names()
    record = json.loads((recording.RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    *_, limits = handed_over(name, monkeypatch)
    judged = {each: {**limit.ends(), "held": limit.holds(record[each])} for each, limit in limits.items()}
    assert record["limits"] == judged
    assert record["provenance"].keys() | {"gpu"} == vars(THERE).keys()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", recording.names())
def test_a_quick_run_has_all_figures_of_the_page_and_writes_none(name: str) -> None:
    def written() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in recording.RECORDS.glob("*")}

    before = written()
    command = [sys.executable, f"benchmarks/{name}.py", "--quick"]
    said = subprocess.run(command, cwd=recording.ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert written() == before
    if said.startswith("skipped: "):
        pytest.skip(said)
    record = figures.Record(name, json.loads(said.splitlines()[-1]))
    placeholders = re.findall(rf"{{{name}\.[^}}]*}}", figures.TEMPLATE.read_text(encoding="utf-8"))
    assert placeholders and all(placeholder.format(**{name: record}) for placeholder in placeholders)


@pytest.mark.parametrize("option", ["--quik", "--qui", "--quick=1", "7"])
def test_a_wrong_option_is_refused(option: str, monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["a.py", option])
    with pytest.raises(SystemExit) as refused:
        recording.run("a", "", lambda quick: {"speed": 1.0}, {})
    assert refused.value.code == 2 and not kept.exists()


def test_a_whole_run_is_written_and_a_quick_one_is_not(
    monkeypatch: pytest.MonkeyPatch, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*options: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["a.py", *options])
        limits = {"speed": Limit(least=2), "memory": Limit(most=10)}
        recording.run("a", "", lambda quick: {"speed": 1.5 if quick else 2.0000004, "memory": 11, "n": 3}, limits)
        return capsys.readouterr().out.splitlines()

    assert json.loads(measured("--quick")[-1])["speed"] == 1.5
    assert not kept.exists()
    *lines, last = measured()
    written = (kept / "a.json").read_text(encoding="utf-8")
    assert json.loads(last) == json.loads(written)
    assert "speed 2, limit at least 2: held" in lines and "memory 11, limit at most 10: NOT held" in lines
    record = json.loads(last)
    assert record.pop("provenance").keys() | {"gpu"} == vars(THERE).keys()
    limits = {"speed": {"least": 2, "held": True}, "memory": {"most": 10, "held": False}}
    assert record == {"speed": 2.0, "memory": 11, "n": 3, "limits": limits}
    measured("--quick")
    assert (kept / "a.json").read_text(encoding="utf-8") == written
    assert [file.name for file in kept.iterdir()] == ["a.json"]


def test_a_quick_run_needs_no_figure_for_each_limit_and_a_whole_one_does(kept: Path) -> None:
    recording.keep("a", {"n": 1}, {"speed": Limit(least=2)}, THERE, quick=True)
    with pytest.raises(ValueError, match=r"limited, but not measured: \['speed'\]"):
        recording.keep("a", {"n": 1}, {"speed": Limit(least=2)}, THERE)
    with pytest.raises(ValueError, match=r"not finite: \['speed'\]"):
        recording.keep("a", {"speed": float("nan")}, {}, THERE)
    assert not kept.exists()


def test_what_cannot_be_measured_here_says_why(
    monkeypatch: pytest.MonkeyPatch, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(quick: bool) -> dict[str, float]:
        raise recording.Skipped("no data")

    monkeypatch.setattr(sys, "argv", ["a.py"])
    recording.run("a", "", measure, {})
    assert capsys.readouterr().out == "skipped: no data\n" and not kept.exists()


@pytest.mark.parametrize(("speed", "code"), [(2.0, 0), (1.0, 1), (None, 2)])
def test_a_check_ends_with_an_exit_code(
    speed: float | None, code: int, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    def measure(quick: bool) -> dict[str, float]:
        if speed is None:
            raise recording.Skipped("no GPU")
        return {"speed": speed}

    def ended(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["a.py", "--quick", *options])
        try:
            recording.run("a", "", measure, {"speed": Limit(least=2)})
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert (ended("--check"), ended()) == (code, 0)


def test_a_gpus_benchmark_takes_the_cpu_for_a_quick_run_alone(
    monkeypatch: pytest.MonkeyPatch, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["a.py", *options])
        recording.run("a", "", lambda quick: {"on": 1}, {}, on_cpu=lambda quick: {"on": 2})

    run("--quick", "--cpu")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["on"] == 2
    with pytest.raises(SystemExit) as refused:
        run("--cpu")
    assert refused.value.code == 2 and "--cpu wants --quick" in capsys.readouterr().err
    assert not kept.exists()


def test_a_card_is_told_where_there_is_one_and_why_there_is_no_figure_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    monkeypatch.setattr(recording, "WANTING", {"b": "no GPU was to be had"})
    recording.keep("a", {"speed": 3.0}, {}, replace(THERE, gpu="A card, driver 1, CUDA 13"))
    page = figures.filled("{a.provenance}\n\n{b.speed}\n", figures.records())
    assert "torch 2.10.0, A card, driver 1, CUDA 13; load" in page
    assert page.endswith("\n\n`python benchmarks/b.py`: not measured yet: no GPU was to be had.\n")


@pytest.mark.parametrize(
    ("limit", "said", "held"),
    [
        (Limit(least=0.95), "at least 0.95", [False, True, True]),
        (Limit(most=0.95), "at most 0.95", [True, True, False]),
        (Limit(least=0.93, most=0.95), "0.93 to 0.95", [True, True, False]),
    ],
)
def test_a_limit_holds_its_ends(limit: Limit, said: str, held: list[bool]) -> None:
    assert str(limit) == said
    assert [limit.holds(figure) for figure in (0.94, 0.95, 0.96)] == held


def test_a_page_has_figures_limits_and_provenance(kept: Path) -> None:
    recording.keep("a", {"speed": 1234.56}, {"speed": Limit(least=2000)}, THERE)
    text = figures.filled("{a.speed:,.1f} ({a.speed.limit}: {a.speed.held})\n\n{a.provenance}\n", figures.records())
    assert text == (
        "1,234.6 (at least 2000: **not held**)\n\n"
        "1 November 2026, commit 0123456789ab; A CPU, 2 cores, 7.8 GiB, Python 3.12.1, torch 2.10.0; "
        "load average 0.25 and 1% of the cores busy at the start; 61 s in all\n"
    )


def test_what_was_not_measured_yet_is_said_once_and_the_rest_is_filled_in(kept: Path) -> None:
    recording.keep("a", {"speed": 3.0}, {}, THERE)
    page, readme = figures.pages(TEMPLATE, README, figures.records())
    said = "\n- a: 3.0\n- `python benchmarks/b.py`: not measured yet.\n\n"
    assert f"<!-- measured -->{said}<!-- /measured -->" in page
    assert readme == f"# Title\n\n<!-- measured -->{said}<!-- /measured -->\n\nMore.\n"
    twice = figures.filled("# B\n\n{b.speed}\n\n{b.provenance}.\n", figures.records())
    assert twice == "# B\n\n`python benchmarks/b.py`: not measured yet.\n"


@pytest.mark.parametrize(
    ("placeholder", "sentence"),
    [
        ("{a.sped}", "docs/benchmarks/a.json has no figure sped"),
        ("{a.speed.limits}", "no attribute 'limits'"),
        ("{c.speed}", "there is no benchmark 'c'"),
        ("{}", "benchmarks/measured.md, at 'x {}'"),
        ("{a.speed:q}", "Unknown format code 'q'"),
    ],
)
def test_a_placeholder_without_figure_is_refused_by_name(kept: Path, placeholder: str, sentence: str) -> None:
    recording.keep("a", {"speed": 3.0}, {}, THERE)
    with pytest.raises(BadInput, match=r"^benchmarks/measured\.md, at ") as refused:
        figures.filled(f"# Page\n\nx {placeholder}\n", figures.records())
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", '{"speed": 1}', '{"limits": {}, "provenance": {"day": 1}}', "[]"])
def test_a_file_that_no_benchmark_wrote_is_refused_by_name(kept: Path, text: str) -> None:
    kept.mkdir()
    (kept / "a.json").write_text(text)
    with pytest.raises(BadInput, match=r"^docs/benchmarks/a\.json is not what a benchmark writes"):
        figures.records()


@pytest.mark.parametrize("readme", ["# Title\n", "<!-- /measured --><!-- measured -->", README + README])
def test_a_readme_without_its_two_markers_is_refused(kept: Path, readme: str) -> None:
    with pytest.raises(BadInput, match=r"^README\.md needs one <!-- measured --> and"):
        figures.pages(TEMPLATE, readme, figures.records())
