"""Syntax trees of source files: the definitions of a module, the names that they use, its imports; hashes of trees."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

#: a local name -> the module that it comes from, and what of it; empty for the module itself
Imports: TypeAlias = dict[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Definitions:
    """Top-level statements that bind the same names, in their order; or all of a file that bind none.

    used     dotted names that stand in them: `losses.focal`
    inner    what they import themselves
    """

    names: frozenset[str]
    tree: str
    used: tuple[str, ...]
    inner: Imports

    def __add__(self, other: Definitions) -> Definitions:
        tree, used = f"{self.tree}\n{other.tree}", (*self.used, *other.used)
        return Definitions(self.names | other.names, tree, used, self.inner | other.inner)


@dataclass(frozen=True)
class Module:
    """A module's statements and imports; `modules` are all that it imports, `from a import b` as a and a.b."""

    path: Path
    groups: list[Definitions]
    imports: Imports
    modules: frozenset[str]

    def binding(self, name: str) -> Definitions | None:
        return next((group for group in self.groups if name in group.names), None)


@functools.cache
def parse_module(path: Path, module: str, modified: int) -> Module:
    """A file as it is now; `modified` makes a changed one another."""
    tree = bare(ast.parse(path.read_text(encoding="utf-8")))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    groups: list[Definitions] = []
    imports: Imports = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _imports(node, package)
        elif not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")):
            _add(groups, _group(node, package))
    everything = [*imports.values(), *(pair for group in groups for pair in group.inner.values())]
    modules = frozenset(name for pair in everything for name in with_packages(*pair))
    return Module(path, groups, imports, modules)


def _add(groups: list[Definitions], new: Definitions) -> None:
    """Statements that bind the same name are one: their order counts."""
    same = [group for group in groups if group.names & new.names or not (group.names or new.names)]
    if not same:
        groups.append(new)
        return
    groups[groups.index(same[0])] = functools.reduce(lambda one, two: one + two, [*same, new])
    groups[:] = [group for group in groups if group not in same[1:]]


def _group(node: ast.stmt, package: str) -> Definitions:
    inner: Imports = {}
    for below in ast.walk(node):
        if isinstance(below, ast.Import | ast.ImportFrom):
            inner |= _imports(below, package)
    bare = cast(ast.stmt, _WithoutImports().visit(node))
    names = frozenset(_bound(bare))
    local = set(_local(bare)) - names
    used = dict.fromkeys(chain for chain in _chains(bare) if chain.partition(".")[0] not in local)
    return Definitions(names, ast.dump(bare), tuple(used), inner)


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    for below in ast.iter_child_nodes(node):
        if isinstance(below, ast.Name) and isinstance(below.ctx, ast.Store):
            yield below.id
        elif isinstance(below, ast.stmt):
            yield from _bound(below)
        elif isinstance(below, ast.Tuple | ast.List | ast.Starred | ast.withitem | ast.ExceptHandler):
            yield from _bound(cast(ast.stmt, below))


def _local(node: ast.stmt) -> Iterator[str]:
    """Arguments, and names that are assigned inside a definition."""
    for below in ast.walk(node):
        if isinstance(below, ast.arg):
            yield below.arg
        elif isinstance(below, ast.Name) and isinstance(below.ctx, ast.Store):
            yield below.id


def _chains(node: ast.AST) -> Iterator[str]:
    """Names with the attributes that are read of them: `losses.focal`."""
    if isinstance(node, ast.Attribute | ast.Name):
        parts, inner = [], cast(ast.expr, node)
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield ".".join([inner.id, *reversed(parts)])
            return
    for below in ast.iter_child_nodes(node):
        yield from _chains(below)


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> Imports:
    """`import a.b` binds a, and is there for a.b; a relative import is told from its package."""
    if isinstance(node, ast.Import):
        top = {a.name.partition(".")[0]: (a.name.partition(".")[0], "") for a in node.names if not a.asname}
        whole = {a.asname or a.name: (a.name, "") for a in node.names}
        return top | whole
    above = package.split(".") if node.level else []
    home = ".".join([*above[: len(above) - node.level + 1], *([node.module] if node.module else [])])
    return {alias.asname or alias.name: (home, alias.name) for alias in node.names}


def with_packages(module: str, attribute: str) -> list[str]:
    """A module, the packages that it is in, and what is taken from it, which may be a module too."""
    parts = f"{module}.{attribute}".strip(".").split(".")
    return [".".join(parts[:number]) for number in range(1, len(parts) + 1)]


def bare(tree: ast.Module) -> ast.Module:
    """A syntax tree without docstrings, and without what only a type checker sees: what it does. Changes the tree."""
    return cast(ast.Module, _Stripped().visit(tree))


def digest_of(tree: ast.Module) -> str:
    """Hash of a syntax tree, 16 hex digits: no comment, blank or line number is in it."""
    return hash_of([ast.dump(tree)])


class _Stripped(ast.NodeTransformer):
    """A tree without docstrings, and without what only a type checker sees."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return [cast(ast.stmt, self.visit(each)) for each in node.orelse]
        return self.generic_visit(node)


class _WithoutImports(ast.NodeTransformer):
    """A statement without the imports inside it: what they bring is told by what its names refer to."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None


def hash_of(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
