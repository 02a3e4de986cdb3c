"""Where things live, and which names may become folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xlite_search import places
from xlite_search.errors import BadInput

FOLDERS: dict[str, Callable[[str], Path]] = {
    "data": places.data_folder,
    "study": places.study_folder,
    "model": places.model_folder,
}
named = pytest.mark.parametrize("folder", FOLDERS.values(), ids=list(FOLDERS))


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_variable_is_not_set(blank: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("XLITE_RUNS", "XLITE_DATA", "XLITE_MACHINE"):
        monkeypatch.setenv(variable, blank)
    assert places.runs_root() == tmp_path / "mlruns"
    assert places.data_root() == tmp_path / "data"
    assert places.machine_file() == tmp_path / "machine.toml"
    assert set(places.environment()) == {"XLITE_RUNS", "XLITE_DATA"}


@named
@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a.", "a..", "a/b", "a\\b", "a ", " a", "a:b", "a?", "a#", "a*"])
def test_signs_that_a_folder_cannot_have_are_refused(folder: Callable[[str], Path], name: str) -> None:
    with pytest.raises(BadInput, match="use letters, digits"):
        folder(name)


@named
@pytest.mark.parametrize("name", ["con", "CON", "Nul", "aux.demo", "prn", "com1", "LPT9.tar.gz", "com\u00b2"])
def test_a_device_of_windows_is_no_name_on_any_system(folder: Callable[[str], Path], name: str) -> None:
    with pytest.raises(BadInput, match=f"Windows keeps '{name.partition('.')[0]}' for a device"):
        folder(name)


@named
@pytest.mark.parametrize("name", ["console", "com", "com10", "a.con", "kd_grid-demo", "1.0", "été", "x" * 200])
def test_other_names_are_folders(folder: Callable[[str], Path], name: str) -> None:
    assert folder(name).name == name


@named
def test_a_name_that_no_file_system_takes_is_refused(folder: Callable[[str], Path]) -> None:
    with pytest.raises(BadInput, match="201 bytes"):
        folder("x" * 201)


@named
def test_names_that_differ_in_case_alone_are_one(folder: Callable[[str], Path]) -> None:
    folder("Grid").mkdir(parents=True)
    assert folder("Grid").is_dir()
    with pytest.raises(BadInput, match="there is 'Grid', which is the same name on Windows"):
        folder("grid")


@pytest.mark.parametrize("name", ["teachers", "final", "Final", "Default", "default"])
def test_a_study_does_not_share_an_experiment_with_what_is_no_study(name: str) -> None:
    with pytest.raises(BadInput, match="MLflow has an experiment of that name"):
        places.study_folder(name)
    assert places.model_folder(name).name == name
