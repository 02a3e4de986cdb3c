"""Every verb from `best` on ends with the command that comes next; what a machine reads has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import PHANTOM
from exported import drawn, handmade
from finished import finished_study
from test_cli import call

from xlite_search.config import RunConfig


def last(out: str) -> str:
    return out.splitlines()[-1]


def test_best_names_the_training(tiny: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_study("s", tiny, [{"seed": 0}], [1.0])
    path = tmp_path / "best.yaml"
    code, out, err = call(capsys, "best", "s", "-o", str(path))
    assert (code, last(out)) == (0, f"next: python -m xlite_search train {path}"), err


def test_a_data_sets_card_names_its_audit(tiny: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "card", PHANTOM)
    assert (code, last(out)) == (0, f"next: python -m xlite_search audit {PHANTOM}"), err


def test_answers_name_the_self_test_and_it_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="pip install 'xlite-search[export]'")
    folder, image = handmade(tmp_path / "m"), str(drawn(tmp_path / "x.png"))
    verb = f"next: python -m xlite_search predict {folder}"
    assert last(call(capsys, "predict", str(folder), image)[1]) == f"{verb} --selftest"
    assert last(call(capsys, "predict", str(folder), "--selftest")[1]) == f"{verb} FILES..."
    both = call(capsys, "predict", str(folder), image, "--selftest")[1]
    assert last(both) == f"next: python -m xlite_search serve {folder}"
    for form in ("--csv", "--json"):
        assert "next:" not in "".join(call(capsys, "predict", str(folder), image, form)[1:])
