"""The code that a function runs: its import closure inside the project, as one hash that knows no file names.

From the function's file on, every import is followed wherever it stands, inside functions too, as long as it leads to
this package or to the project's root (`trainables/` and what lies beside it); what only a type checker sees is not.
The hash is of the *set* of the definitions met, docstrings left out: a function that moves to another file, a comment,
`__all__`, or a new file that nobody imports changes nothing. Each definition is taken with what the names in it refer
to, so that it is noticed if another function of the same name takes a place.

Of the function's own file only what it reaches counts, and what runs when the file is imported: a study file may hold
its trainable, and its question is not the trainable's code. Modules that are imported by a computed name are not seen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

PACKAGE = Path(__file__).parent
#: a local name -> the module that it comes from, and what of it; empty for the module itself
Imports: TypeAlias = dict[str, tuple[str, str]]


class Code(NamedTuple):
    """What a function runs.

    version  hash of the definitions, 16 hex digits
    files    each file's own hash, by its path from the project's root; only to say which ones changed
    """

    version: str
    files: dict[str, str]

    def differences(self, files: dict[str, str]) -> list[str]:
        """The files that are new, gone or other than they were."""
        return sorted(name for name in files.keys() | self.files.keys() if files.get(name) != self.files.get(name))


def code_of(file: Path, function: str, module: str, root: Path) -> Code:
    """The code of a function by its name in a file; `module` is what that file is imported as.

    Raises:
        SyntaxError: a file of the closure is no Python.
    """
    project = _Project(root.absolute())
    first = _parsed(file.absolute(), module, file.stat().st_mtime_ns)
    met = {first.path: (first, _reached(first, function))}
    waiting = _imported(first, met[first.path][1])
    while waiting:
        found = project.find(waiting.pop())
        if found and found.path not in met:
            met[found.path] = (found, found.groups)
            waiting |= found.modules
    version = _version({group: project.meanings(of, group) for of, chosen in met.values() for group in chosen})
    files = {project.shown(of.path): _hash(group.tree for group in chosen) for of, chosen in met.values()}
    return Code(version, dict(sorted(files.items())))


@dataclass(frozen=True, eq=False)
class _Group:
    """Top-level statements that bind the same names, in their order; or all of a file that bind none.

    used     dotted names that stand in them: `losses.focal`
    inner    what they import themselves
    """

    names: frozenset[str]
    tree: str
    used: tuple[str, ...]
    inner: Imports

    def __add__(self, other: _Group) -> _Group:
        tree, used = f"{self.tree}\n{other.tree}", (*self.used, *other.used)
        return _Group(self.names | other.names, tree, used, self.inner | other.inner)


@dataclass(frozen=True)
class _File:
    """A module's statements and imports; `modules` are all that it imports, `from a import b` as a and a.b."""

    path: Path
    groups: list[_Group]
    imports: Imports
    modules: frozenset[str]

    def binding(self, name: str) -> _Group | None:
        return next((group for group in self.groups if name in group.names), None)


class _Project:
    """Modules of this package and of a project's root, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[str, _File | None] = {}

    def find(self, module: str) -> _File | None:
        """None for a module of somebody else, or for a name that is none. Looked for once: what is found stays."""
        if module not in self._found:
            self._found[module] = self._looked_for(module)
        return self._found[module]

    def _looked_for(self, module: str) -> _File | None:
        top, *below = module.split(".")
        if not all(part.isidentifier() for part in (top, *below)):
            return None
        home = (PACKAGE if top == PACKAGE.name else self.root / top).joinpath(*below)
        for path in (home / "__init__.py", home.with_name(f"{home.name}.py")):
            if path.is_file():
                return _parsed(path, module, path.stat().st_mtime_ns)
        return None

    def shown(self, path: Path) -> str:
        home = next((h for h in (PACKAGE.parent, self.root) if path.is_relative_to(h)), path.parent)
        return path.relative_to(home).as_posix()

    def meanings(self, file: _File, group: _Group) -> dict[str, _Group | str]:
        """What the names in a group refer to: another group, or a name of somebody else's library."""
        found = {used: self._meaning(file, group, used) for used in group.used}
        return {used: meant for used, meant in found.items() if meant}

    def _meaning(self, file: _File, group: _Group, used: str) -> _Group | str:
        name, _, rest = used.partition(".")
        if name in group.inner:
            return self._of(*group.inner[name], rest, PATIENCE)
        return self._within(file, name, rest, PATIENCE)

    def _within(self, file: _File, name: str, rest: str, left: int) -> _Group | str:
        bound = file.binding(name)
        if bound:
            return bound
        return self._of(*file.imports[name], rest, left - 1) if name in file.imports and left else ""

    def _of(self, module: str, attribute: str, rest: str, left: int) -> _Group | str:
        """What `attribute.rest` of a module is: what binds it, or its name in somebody else's library."""
        name, _, further = (f"{attribute}.{rest}".strip(".") if attribute else rest).partition(".")
        below = self.find(f"{module}.{name}") if name else None
        if below:
            return self._of(f"{module}.{name}", "", further, left - 1) if left else ""
        file = self.find(module)
        if file is None:
            return f"{module}.{attribute}"
        return self._within(file, name, further, left) if name else ""


#: re-exports that are followed from one name
PATIENCE = 20
#: how far the meaning of a name is followed: who calls whom calls whom ...
DEPTH = 8


def _version(meanings: dict[_Group, dict[str, _Group | str]]) -> str:
    """Hash of the set of groups, each with what its names refer to, and those again: `DEPTH` times, cycles included."""
    known = {group: _hash([group.tree]) for group in meanings}
    for _ in range(DEPTH):
        known = {
            group: _hash([group.tree, *sorted(f"{name}: {_said(meant, known)}" for name, meant in below.items())])
            for group, below in meanings.items()
        }
    return _hash(sorted(set(known.values())))


def _said(meant: _Group | str, known: dict[_Group, str]) -> str:
    return meant if isinstance(meant, str) else known.get(meant) or _hash([meant.tree])


def _reached(file: _File, function: str) -> list[_Group]:
    """What a function of a file needs of that file, in the file's order; what runs at its import is among it."""
    wanted = {function} | {used.partition(".")[0] for group in file.groups if not group.names for used in group.used}
    chosen: list[_Group] = [group for group in file.groups if not group.names]
    while more := [group for group in file.groups if group not in chosen and group.names & wanted]:
        chosen += more
        wanted |= {used.partition(".")[0] for group in more for used in group.used}
    return [group for group in file.groups if group in chosen]


def _imported(file: _File, groups: list[_Group]) -> set[str]:
    """The modules that these groups of a file use, and those that it imports for nothing but their import."""
    used = {name.partition(".")[0] for group in groups for name in group.used}
    elsewhere = {name.partition(".")[0] for group in file.groups for name in group.used} - used
    imports = [pair for name, pair in file.imports.items() if name not in elsewhere]
    imports += [pair for group in groups for pair in group.inner.values()]
    return {module for pair in imports for module in _with_packages(*pair)}


@functools.cache
def _parsed(path: Path, module: str, modified: int) -> _File:
    """A file as it is now; `modified` makes a changed one another."""
    tree = bare(ast.parse(path.read_text(encoding="utf-8")))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    groups: list[_Group] = []
    imports: Imports = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _imports(node, package)
        elif not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")):
            _add(groups, _group(node, package))
    everything = [*imports.values(), *(pair for group in groups for pair in group.inner.values())]
    modules = frozenset(name for pair in everything for name in _with_packages(*pair))
    return _File(path, groups, imports, modules)


def _add(groups: list[_Group], new: _Group) -> None:
    """Statements that bind the same name are one: their order counts."""
    same = [group for group in groups if group.names & new.names or not (group.names or new.names)]
    if not same:
        groups.append(new)
        return
    groups[groups.index(same[0])] = functools.reduce(lambda one, two: one + two, [*same, new])
    groups[:] = [group for group in groups if group not in same[1:]]


def _group(node: ast.stmt, package: str) -> _Group:
    inner: Imports = {}
    for below in ast.walk(node):
        if isinstance(below, ast.Import | ast.ImportFrom):
            inner |= _imports(below, package)
    bare = cast(ast.stmt, _WithoutImports().visit(node))
    names = frozenset(_bound(bare))
    local = set(_local(bare)) - names
    used = dict.fromkeys(chain for chain in _chains(bare) if chain.partition(".")[0] not in local)
    return _Group(names, ast.dump(bare), tuple(used), inner)


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
    """Names with the attributes that are asked of them: `losses.focal`."""
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


def _with_packages(module: str, attribute: str) -> list[str]:
    """A module, the packages that it is in, and what is asked of it, which may be a module too."""
    parts = f"{module}.{attribute}".strip(".").split(".")
    return [".".join(parts[:number]) for number in range(1, len(parts) + 1)]


def bare(tree: ast.Module) -> ast.Module:
    """A syntax tree without docstrings, and without what only a type checker sees: what it does. Changes the tree."""
    return cast(ast.Module, _Stripped().visit(tree))


def digest_of(tree: ast.Module) -> str:
    """Hash of a syntax tree, 16 hex digits: no comment, blank or line number is in it."""
    return _hash([ast.dump(tree)])


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


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
