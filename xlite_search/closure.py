"""Code version: hash of a function's import closure inside the project, which knows no file names.

From the function's file on, every import is followed wherever it stands, inside functions too, as long as it leads to
this package or to the project's root (`trainables/` and what lies beside it); what only a type checker sees is not.
The hash is of the *set* of the definitions met, docstrings left out: a function that moves to another file, a comment,
`__all__`, or a new file that nobody imports changes nothing. Each definition is taken with what the names in it refer
to, so that it is noticed if another function of the same name takes a place.

Of the function's own file only what it reaches counts, and what runs when the file is imported: a study file may hold
its trainable, and its question is not the trainable's code. Modules that are imported by a computed name are not seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from xlite_search.syntax import Definitions, Module, hash_of, parse_module, with_packages

PACKAGE = Path(__file__).parent


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
    first = parse_module(file.absolute(), module, file.stat().st_mtime_ns)
    met = {first.path: (first, _reached(first, function))}
    waiting = _imported(first, met[first.path][1])
    while waiting:
        found = project.find(waiting.pop())
        if found and found.path not in met:
            met[found.path] = (found, found.groups)
            waiting |= found.modules
    version = _version({group: project.meanings(of, group) for of, chosen in met.values() for group in chosen})
    files = {project.shown(of.path): hash_of(group.tree for group in chosen) for of, chosen in met.values()}
    return Code(version, dict(sorted(files.items())))


class _Project:
    """Modules of this package and of a project's root, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[str, Module | None] = {}

    def find(self, module: str) -> Module | None:
        """None for a module of somebody else, or for a name that is none. Looked for once: what is found stays."""
        if module not in self._found:
            self._found[module] = self._looked_for(module)
        return self._found[module]

    def _looked_for(self, module: str) -> Module | None:
        top, *below = module.split(".")
        if not all(part.isidentifier() for part in (top, *below)):
            return None
        home = (PACKAGE if top == PACKAGE.name else self.root / top).joinpath(*below)
        for path in (home / "__init__.py", home.with_name(f"{home.name}.py")):
            if path.is_file():
                return parse_module(path, module, path.stat().st_mtime_ns)
        return None

    def shown(self, path: Path) -> str:
        home = next((h for h in (PACKAGE.parent, self.root) if path.is_relative_to(h)), path.parent)
        return path.relative_to(home).as_posix()

    def meanings(self, file: Module, group: Definitions) -> dict[str, Definitions | str]:
        """What the names in a group refer to: another group, or a name of somebody else's library."""
        found = {used: self._meaning(file, group, used) for used in group.used}
        return {used: meant for used, meant in found.items() if meant}

    def _meaning(self, file: Module, group: Definitions, used: str) -> Definitions | str:
        name, _, rest = used.partition(".")
        if name in group.inner:
            return self._of(*group.inner[name], rest, PATIENCE)
        return self._within(file, name, rest, PATIENCE)

    def _within(self, file: Module, name: str, rest: str, left: int) -> Definitions | str:
        bound = file.binding(name)
        if bound:
            return bound
        return self._of(*file.imports[name], rest, left - 1) if name in file.imports and left else ""

    def _of(self, module: str, attribute: str, rest: str, left: int) -> Definitions | str:
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


def _version(meanings: dict[Definitions, dict[str, Definitions | str]]) -> str:
    """Hash of the set of groups, each with what its names refer to, and those again: `DEPTH` times, cycles included."""
    known = {group: hash_of([group.tree]) for group in meanings}
    for _ in range(DEPTH):
        known = {
            group: hash_of([group.tree, *sorted(f"{name}: {_digest(meant, known)}" for name, meant in below.items())])
            for group, below in meanings.items()
        }
    return hash_of(sorted(set(known.values())))


def _digest(meant: Definitions | str, known: dict[Definitions, str]) -> str:
    return meant if isinstance(meant, str) else known.get(meant) or hash_of([meant.tree])


def _reached(file: Module, function: str) -> list[Definitions]:
    """What a function of a file needs of that file, in the file's order; what runs at its import is among it."""
    wanted = {function} | {used.partition(".")[0] for group in file.groups if not group.names for used in group.used}
    chosen: list[Definitions] = [group for group in file.groups if not group.names]
    while more := [group for group in file.groups if group not in chosen and group.names & wanted]:
        chosen += more
        wanted |= {used.partition(".")[0] for group in more for used in group.used}
    return [group for group in file.groups if group in chosen]


def _imported(file: Module, groups: list[Definitions]) -> set[str]:
    """The modules that these groups of a file use, and those that it imports for nothing but their import."""
    used = {name.partition(".")[0] for group in groups for name in group.used}
    elsewhere = {name.partition(".")[0] for group in file.groups for name in group.used} - used
    imports = [pair for name, pair in file.imports.items() if name not in elsewhere]
    imports += [pair for group in groups for pair in group.inner.values()]
    return {module for pair in imports for module in with_packages(*pair)}
