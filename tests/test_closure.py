"""What counts as the code of a trainable: what it imports, not where that stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainables.baseline import baseline
from trainables.distill import distill
from xlite_search import closure, syntax
from xlite_search.closure import Code, code_of
from xlite_search.trainable import code_of as code_of_trainable

PROJECT = {
    "trainables/mine.py": """
        \"\"\"A trainable.\"\"\"
        from losses import focal
        import parts.optim as optim
        def mine(config, resume=None):
            rate = optim.rate(config)
            yield focal(rate)
        """,
    "losses.py": """
        import math
        LIMIT = 3
        def focal(x):
            \"\"\"Says what it is.\"\"\"
            return math.exp(x) * LIMIT
        def bce(x):
            return x
        """,
    "parts/__init__.py": "",
    "parts/optim.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import typed_only
        def rate(config):
            from late import later
            return later(config)
        """,
    "late.py": "def later(config):\n    return config\n",
    "typed_only.py": "X = 1\n",
}


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")
    return root


def code(root: Path, file: str = "trainables/mine.py", function: str = "mine") -> Code:
    syntax.parse_module.cache_clear()  # a test writes faster than a clock of files ticks
    return code_of(root / file, function, file.removesuffix(".py").replace("/", "."), root)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return written(tmp_path / "project", PROJECT)


def change(project: Path, file: str, old: str, new: str) -> None:
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))


def test_the_files_are_those_that_it_imports_wherever_the_import_stands(project: Path) -> None:
    files = ["late.py", "losses.py", "parts/__init__.py", "parts/optim.py", "trainables/mine.py"]
    assert sorted(code(project).files) == files


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("losses.py", "* LIMIT", "* LIMIT + 1"),
        ("losses.py", "LIMIT = 3", "LIMIT = 4"),
        ("late.py", "return config", "return None"),
        ("parts/optim.py", "later(config)", "later(config) * 2"),
        ("trainables/mine.py", "focal(rate)", "focal(rate + 1)"),
    ],
)
def test_other_code_is_another_version_and_named_by_its_file(project: Path, file: str, old: str, new: str) -> None:
    before = code(project)
    change(project, file, old, new)
    after = code(project)
    assert after.version != before.version
    assert after.differences(before.files) == [file]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("losses.py", "Says what it is.", "Says what it is; a finding of today."),
        ("losses.py", "LIMIT = 3", "# as in the paper\nLIMIT  =  (3)\n__all__ = ['focal']"),
        ("trainables/mine.py", "A trainable.", "Another question?"),
        ("typed_only.py", "X = 1", "X = 2"),
    ],
)
def test_words_and_what_only_a_type_checker_reads_change_nothing(project: Path, file: str, old: str, new: str) -> None:
    before = code(project)
    change(project, file, old, new)
    assert code(project).version == before.version


def test_a_file_that_nobody_imports_changes_nothing(project: Path) -> None:
    before = code(project)
    written(project, {"trainables/other.py": "def other():\n    pass\n"})
    assert code(project) == before


def test_a_function_that_moves_to_another_file_changes_nothing(project: Path) -> None:
    before = code(project)
    change(project, "losses.py", "def bce(x):\n    return x\n", "")
    change(project, "losses.py", "import math\n", "import math\nfrom cross import bce\n")
    written(project, {"cross.py": "def bce(x):\n    return x\n"})
    assert code(project).version == before.version


def test_a_function_that_moves_with_all_that_it_uses_changes_nothing(project: Path) -> None:
    before = code(project)
    moved = (project / "losses.py").read_text()
    (project / "losses.py").write_text("from deep.within import bce, focal\n")
    written(project, {"deep/__init__.py": "", "deep/within.py": moved})
    assert code(project).version == before.version


@pytest.mark.parametrize(
    "other", ["def focal(x):\n    return x\n", "def focal(x):\n    import math\n    return math.exp(x) * LIMIT\n"]
)
def test_another_function_of_the_same_name_is_noticed(project: Path, other: str) -> None:
    """Both are in the closure before and after: only who means which changes."""
    written(project, {"rival.py": f"LIMIT = 3\n{other}"})
    change(project, "late.py", "return config", "import rival\n    return rival.focal(config)")
    change(project, "losses.py", "LIMIT = 3", "LIMIT = 5")
    before = code(project)
    change(project, "trainables/mine.py", "from losses import focal", "from rival import focal\nimport losses")
    assert code(project).version != before.version


def test_the_same_name_from_another_library_is_noticed(project: Path) -> None:
    before = code(project)
    change(project, "losses.py", "import math", "import numpy as math")
    assert code(project).version != before.version


def test_the_order_of_assignments_to_one_name_counts(project: Path) -> None:
    change(project, "losses.py", "LIMIT = 3", "LIMIT = 3\nLIMIT = 4")
    before = code(project)
    change(project, "losses.py", "LIMIT = 3\nLIMIT = 4", "LIMIT = 4\nLIMIT = 3")
    assert code(project).version != before.version


STUDY = """
    \"\"\"A question?\"\"\"
    import search
    from losses import focal
    BONUS = 1
    def mine(config, resume=None):
        yield focal(BONUS)
    def space(trial):
        trial.suggest_int("epochs", 1, 3)
    study = search.Study(mine, space)
    """


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("search_spaces/q.py", "1, 3", "1, 4", True),
        ("search_spaces/q.py", "A question?", "Another?", True),
        ("search.py", "Study = 1", "Study = 2", True),
        ("search_spaces/q.py", "BONUS = 1", "BONUS = 2", False),
        ("search_spaces/q.py", "import search\n", "import search\nprint('runs when it is imported')\n", False),
        ("losses.py", "LIMIT = 3", "LIMIT = 4", False),
    ],
)
def test_of_a_study_file_only_what_its_trainable_reaches(
    project: Path, file: str, old: str, new: str, same: bool
) -> None:
    written(project, {"search_spaces/q.py": STUDY, "search.py": "Study = 1\n"})
    before = code(project, "search_spaces/q.py")
    assert sorted(before.files) == ["losses.py", "search_spaces/q.py"]
    change(project, file, old, new)
    assert (code(project, "search_spaces/q.py").version == before.version) is same


def test_an_import_for_its_effect_alone_counts(project: Path) -> None:
    written(project, {"register.py": "print('models')\n"})
    change(project, "trainables/mine.py", "import parts.optim", "import register\nimport parts.optim")
    assert "register.py" in code(project).files


def test_relative_imports_and_cycles(project: Path) -> None:
    written(project, {"parts/optim.py": "from . import other\ndef rate(c):\n    return other.double(c)\n"})
    written(project, {"parts/other.py": "from .optim import rate\ndef double(c):\n    return c and rate(c)\n"})
    before = code(project)
    assert "parts/other.py" in before.files
    change(project, "parts/other.py", "c and", "c or")
    assert code(project).differences(before.files) == ["parts/other.py"]


def test_the_projects_own_trainables(tmp_path: Path) -> None:
    taught, alone = code_of_trainable(distill), code_of_trainable(baseline)
    assert {"trainables/baseline.py", "trainables/distill.py", "xlite_search/training/losses.py"} <= set(taught.files)
    assert "trainables/distill.py" not in alone.files and "xlite_search/distill/answers.py" not in alone.files
    assert not [name for name in taught.files if name.startswith(("xlite_search/search/", "xlite_search/results/"))]


def test_a_loss_of_the_package_moves_or_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a copy of this very package."""
    package = Path(closure.__file__).parent
    shutil.copytree(package, tmp_path / "xlite_search", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "trainables", tmp_path / "trainables")
    monkeypatch.setattr(closure, "PACKAGE", tmp_path / "xlite_search")
    before = code(tmp_path, "trainables/baseline.py", "baseline")
    weighting = tmp_path / "xlite_search" / "training" / "weighting.py"
    moved = tmp_path / "xlite_search" / "training" / "rarity.py"
    moved.write_text(weighting.read_text())
    losses = tmp_path / "xlite_search" / "training" / "losses.py"
    weighting.unlink()
    for path in (tmp_path / "xlite_search").rglob("*.py"):
        path.write_text(path.read_text().replace("training.weighting", "training.rarity"))
    after = code(tmp_path, "trainables/baseline.py", "baseline")
    assert after.version == before.version
    losses.write_text(losses.read_text() + "\n\ndef another() -> int:\n    return 1\n")
    changed = code(tmp_path, "trainables/baseline.py", "baseline")
    assert changed.version != before.version
    assert changed.differences(after.files) == ["xlite_search/training/losses.py"]
