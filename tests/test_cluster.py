"""More than one machine: two Ray nodes, an MLflow server on PostgreSQL, and the same command. Slow.

    python -m pytest -m slow tests/test_cluster.py -s

The two nodes are two addresses of loopback. PostgreSQL comes from the system (Debian's package is installed, if this
may be done), and its Python driver into a folder of this test.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from test_faults import Night, wait_until

from xlite_search.config import RunConfig
from xlite_search.search.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1500)]
HEAD, SECOND = "127.0.0.2", "127.0.0.3"

#: what the trainable of a Night writes down: on which node it is
NODE = "import ray; print(ray.get_runtime_context().get_node_id(), file=open(f'{LOG}.nodes', 'a')); time.sleep(1.5)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(true: Callable[[], bool], what: subprocess.Popen[bytes], limit_s: float = 90) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert what.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it does not answer"
        time.sleep(0.1)


@contextlib.contextmanager
def process(command: list[str], log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server with all its children, until the block ends."""
    with open(log, "wb") as out:
        started = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | more, start_new_session=True
        )
    try:
        yield started
    finally:
        end(started)


def end(started: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        above = psutil.Process(started.pid)
        for each in (*above.children(recursive=True), above):
            with contextlib.suppress(psutil.Error):
                each.kill()
    started.wait()


def binaries() -> Path:
    """PostgreSQL's programs."""
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("runuser"):
        pytest.skip("PostgreSQL is installed and run by root, as another user")
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        installed = subprocess.run(["apt-get", "install", "-y", "postgresql"], capture_output=True, check=False)
        if installed.returncode:
            pytest.skip("Debian's package postgresql cannot be installed here")
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """PostgreSQL on loopback: its address for SQLAlchemy, and the folder of its Python driver."""
    programs, port = binaries(), free_port()
    driver = tmp_path / "driver"
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(driver), "psycopg2-binary"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("psycopg2-binary cannot be installed here")
    home = Path(tempfile.mkdtemp(prefix="xlite-postgres-"))
    shutil.chown(home, "postgres")
    user = ["runuser", "-u", "postgres", "--"]
    subprocess.run([*user, str(programs / "initdb"), "-D", str(home / "data"), "-A", "trust"], check=True, cwd=home,
                   capture_output=True)  # fmt: skip
    options = ["-D", str(home / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(home)]
    with process([*user, str(programs / "postgres"), *options], tmp_path / "postgres.log") as server:
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        answers(lambda: subprocess.run(ready, check=False).returncode == 0, server)
        yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres", driver
    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def mlflow_server(store: str, port: int, log: Path, driver: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(log.parent / "artifacts")]
    with process(command, log, **({"PYTHONPATH": str(driver)} if driver else {})) as server:
        answers(lambda: is_healthy(port), server)
        yield server


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Two nodes of a core each: the cluster's address, and the second node, to be killed."""
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32, "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    address = f"{HEAD}:{free_port()}"
    head = [*ray, "--head", f"--node-ip-address={HEAD}", f"--port={address.partition(':')[2]}",
            "--include-dashboard=false", f"--temp-dir={tempfile.mkdtemp(prefix='xlite-cluster-')}"]  # fmt: skip
    with process(head, tmp_path / "head.log") as first:
        answers(lambda: "Ray runtime started" in (tmp_path / "head.log").read_text(), first)
        second = [*ray, f"--address={address}", f"--node-ip-address={SECOND}"]
        with process(second, tmp_path / "second.log") as other:
            answers(lambda: "Ray runtime started" in (tmp_path / "second.log").read_text(), other)
            yield address, other


def nodes_of(night: Night) -> Counter[str]:
    """Epochs by the node that trained them."""
    path = Path(f"{night.log}.nodes")
    return Counter(path.read_text().splitlines() if path.exists() else [])


def runs_on_server(port: int) -> list[dict[str, object]]:
    """All runs that the MLflow server knows."""
    base = f"http://127.0.0.1:{port}/api/2.0/mlflow"

    def post(path: str, body: object) -> dict[str, list[dict[str, object]]]:
        request = urllib.request.Request(
            f"{base}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, list[dict[str, object]]] = json.loads(answer.read())
            return found

    experiments = [e["experiment_id"] for e in post("experiments/search", {"max_results": 100})["experiments"]]
    return post("runs/search", {"experiment_ids": experiments, "max_results": 1000}).get("runs", [])


def test_two_nodes_and_a_server_on_postgresql(
    tmp_path: Path,
    tiny: RunConfig,
    database: tuple[str, Path],
    cluster: tuple[str, subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (store, driver), (address, second), port = database, cluster, free_port()
    night = Night(tmp_path, tiny, after=NODE)
    with mlflow_server(store, port, tmp_path / "mlflow.log", driver):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        running = night.start("--address", address)
        assert wait_until(lambda: len(nodes_of(night)) == 2, running), running.communicate()[0]
        before = nodes_of(night)
        os.killpg(second.pid, signal.SIGKILL)
        end(second)
        said, _ = running.communicate(timeout=600)
        print(f"\nepochs by node when the second was killed: {sorted(before.values())}; code {running.returncode}")
        if running.returncode:
            print(said[-1500:])
            night.finish("--address", address)
        assert {run.status for run in night.study.runs()} <= {"finished", "stopped"}
        assert verify(night.study) == []
        trained = len(night.epochs())
        assert "nothing is left to train" in night.finish("--address", address)
        assert len(night.epochs()) == trained
        found = runs_on_server(port)
        keys = Counter(tag["value"] for run in found for tag in run["data"]["tags"] if tag["key"] == "xlite.trial_key")  # type: ignore[index]
        assert keys == Counter(run.key for run in night.study.runs())
        print(f"{len(found)} runs on the server, {night.repeated()} epochs repeated, by node {nodes_of(night)}")
        assert night.repeated() <= 1


def test_a_server_that_is_down_and_comes_back(tmp_path: Path, tiny: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every point arrives exactly once, and training goes on meanwhile."""
    port, store = free_port(), f"sqlite:///{tmp_path}/server.db"
    night = Night(tmp_path, tiny, after="time.sleep(0.5)", scheduler="None", seeds=2, epochs=110)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with mlflow_server(store, port, tmp_path / "first.log"):
        running = night.start()
        assert wait_until(lambda: len(night.epochs()) >= 6, running), running.communicate()[0]
        began = time.time()
        assert wait_until(lambda: time.time() - began > 20, running), running.communicate()[0]
    down = time.time()
    assert wait_until(lambda: time.time() - down > 30, running), running.communicate()[0]
    before, during = night.speed(began, down), night.speed(down, time.time())
    with mlflow_server(store, port, tmp_path / "second.log"):
        said, _ = running.communicate(timeout=300)
        print(f"\nserver down: {during:.2f} epochs a second, {before:.2f} before: {during / before:.3f}")
        assert during >= 0.95 * before
        if running.returncode or "could not be written" in said:
            print(said[-500:])
        assert verify(night.study) == [] or "could not be written" in said
        night.finish()
        assert verify(night.study) == []
        assert night.repeated() == 0


def test_a_server_that_never_comes_back_costs_no_training(
    tmp_path: Path, tiny: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, store = free_port(), f"sqlite:///{tmp_path}/server.db"
    night = Night(tmp_path, tiny, scheduler="None", seeds=2, epochs=3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    said = night.finish()
    print(f"\n{time.monotonic() - started:.0f} s without a server")
    assert "MLflow could not be written" in said and "the same command fills it in" in said
    assert len(night.epochs()) == 6
    with mlflow_server(store, port, tmp_path / "late.log"):
        night.finish()
        assert len(night.epochs()) == 6
        assert verify(night.study) == []
