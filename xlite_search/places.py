"""Paths: prepared data, studies, teachers, models and the tracking database.

`XLITE_RUNS` (default `mlruns`) and `XLITE_DATA` (default `data`) move the two folders; empty is as good as not set.
Paths are absolute: Ray changes the folder of its workers.

A name that becomes a folder is one that every system takes, and takes for the same: studies are copied between them.
"""

from __future__ import annotations

import os
from pathlib import Path

from xlite_search.errors import BadInput

#: MLflow's experiments that belong to no study; the last is there in every database
TEACHERS, FINAL, DEFAULT = "teachers", "final", "Default"
#: what Windows takes for a device in any folder, whatever follows a dot
PORTS = [port + sign for port in ("com", "lpt") for sign in "0123456789\u00b9\u00b2\u00b3"]
DEVICES = {"con", "prn", "aux", "nul", *PORTS}
#: bytes of a name: a file system takes 255, and a model's default name puts a hash behind a study's
LONGEST = 200


def variable(name: str) -> str:
    """An environment variable; empty if it is not set, or blank."""
    return os.environ.get(name, "").strip()


def give_home() -> None:
    """A home and a name for who has none, a user of a container without an entry in passwd: libraries keep caches in
    the one, and ask for the other. It lies with the runs; a home that is there is left as it is."""
    if os.name == "nt":
        return
    import pwd

    home = Path(os.path.expanduser("~"))
    if home == Path("/") or not home.is_dir():
        os.environ["HOME"] = str(runs_root() / "home")
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", str(os.getuid()))


def runs_root() -> Path:
    return Path(variable("XLITE_RUNS") or "mlruns").absolute()


def data_root() -> Path:
    return Path(variable("XLITE_DATA") or "data").absolute()


def data_folder(name: str) -> Path:
    return _named(data_root(), name, "data.name")


def study_folder(name: str) -> Path:
    """Raises BadInput if it is no name for a folder, or one of MLflow's experiments that are no studies."""
    if name.casefold() in (TEACHERS, FINAL, DEFAULT.casefold()):
        raise BadInput(f"the study name is '{name}': MLflow has an experiment of that name for others; take another")
    return _named(runs_root() / "studies", name, "the study name")


def studies() -> list[str]:
    """Names of the studies that have begun here."""
    return sorted(path.parent.name for path in (runs_root() / "studies").glob("*/study.json"))


def teacher_folder(key: str) -> Path:
    return runs_root() / "teachers" / key


def compiled_folder() -> Path:
    """What torch.compile made, for every run here."""
    return runs_root() / "compiled"


def model_folder(name: str) -> Path:
    return _named(runs_root() / "models", name, "the model name")


def environment() -> dict[str, str]:
    """The folders, and the settings of this machine if there are any, for a process that starts elsewhere."""
    found = {"XLITE_RUNS": str(runs_root()), "XLITE_DATA": str(data_root())}
    settings = machine_file()
    return found | ({"XLITE_MACHINE": str(settings)} if settings.is_file() else {})


def machine_file() -> Path:
    """This machine's settings, whether they are there or not."""
    return Path(variable("XLITE_MACHINE") or "machine.toml").absolute()


def plain_name(name: str, what: str) -> str:
    """A name that is safe as a folder on Linux and Windows.

    Raises:
        BadInput: it is empty, holds other than letters, digits, `.`, `_`, `-`, starts or ends with a dot, is too long,
            or is what Windows calls a device.
    """
    if not name or name.strip(".") != name or not all(c.isalnum() or c in "._-" for c in name):
        raise BadInput(f"{what} is '{name}': use letters, digits, '.', '_' and '-' only, no '.' first or last")
    device = name.partition(".")[0]
    if device.casefold() in DEVICES:
        raise BadInput(f"{what} is '{name}': Windows keeps '{device}' for a device; take another")
    if len(name.encode()) > LONGEST:
        raise BadInput(f"{what} has {len(name.encode())} bytes: a folder's name takes {LONGEST} here; shorten it")
    return name


def _named(home: Path, name: str, what: str) -> Path:
    """The folder of that name; where letters' case makes no difference, two names would be one folder.

    Raises:
        BadInput: as `plain_name`, or there is a folder whose name differs in letters' case alone.
    """
    folder = home / plain_name(name, what)
    there = [path.name for path in home.iterdir()] if home.is_dir() else []
    twin = next((each for each in there if each.casefold() == name.casefold()), None)
    if twin is not None and name not in there:
        raise BadInput(f"{what} is '{name}': there is '{twin}', which is the same name on Windows; say '{twin}'")
    return folder


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the closest one above it that is there: on whose disk it will be."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
