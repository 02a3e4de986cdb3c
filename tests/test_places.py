"""Where things live, and which names may become folders."""

from __future__ import annotations

import getpass
import os
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


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a home otherwise")
@pytest.mark.parametrize("home", ["/", "/there/is/none"])
def test_who_has_no_home_gets_one_with_the_runs(home: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    places.give_home()
    assert Path.home() == runs / "home"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a home otherwise")
def test_who_has_no_name_is_a_number_and_a_home_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    places.give_home()
    assert (Path.home(), getpass.getuser()) == (tmp_path, "987654")


def test_the_nearest_folder_is_itself_or_the_closest_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.nearest_folder(tmp_path) == tmp_path
    assert places.nearest_folder(tmp_path / "a" / "b") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert places.nearest_folder(Path("a") / "b") == tmp_path
