from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINES = ("ray", "mlflow", "optuna")
ABOVE = ("xlite_search.search", "xlite_search.results", "xlite_search.tracking")
LOWER = ("xlite_search/data", "xlite_search/models", "xlite_search/training", "xlite_search/distill")

RULES: list[tuple[str, tuple[str, ...]]] = [(part, (*ENGINES, *ABOVE)) for part in (*LOWER, "trainables")]
RULES += [(part, ("xlite_search.config", "trainables", "search_spaces")) for part in LOWER]
RULES += [("xlite_search/data", ("xlite_search.training", "xlite_search.models", "xlite_search.distill"))]
RULES += [("xlite_search/models", ("xlite_search.training", "xlite_search.data", "xlite_search.distill"))]
RULES += [("xlite_search/training", ("xlite_search.models", "xlite_search.distill"))]
RULES += [("xlite_search/results", ("xlite_search.search", "ray"))]  # optuna has the importances of what it suggested
RULES += [("xlite_search/evaluation", ("xlite_search.search", "xlite_search.deploy", *ENGINES))]
RULES += [("xlite_search/deploy", ("xlite_search.search", *ENGINES))]
RULES += [("xlite_search/records.py", ENGINES), ("xlite_search/config.py", (*ENGINES, *ABOVE))]
RULES += [("xlite_search", ("search_spaces", "trainables", "tests", "benchmarks"))]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, by its full name; `from a import b` gives a and a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def below(part: str) -> list[Path]:
    return [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize(("part", "forbidden"), RULES)
def test_levels_hold(part: str, forbidden: tuple[str, ...]) -> None:
    files = below(part)
    assert files
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]
    assert broken == []


def test_relative_imports_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "xlite_search" / "data" / "odd.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from ..search import runner\nfrom . import packed\nfrom .. import tracking\ndef f():\n import ray.tune\n"
    )
    assert {"xlite_search.search", "xlite_search.data.packed", "xlite_search.tracking", "ray.tune"} <= set(
        imports(file)
    )
