"""MLflow's pages on this project's database: served on loopback alone, and where to look first."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlencode

from xlite_search import places
from xlite_search.errors import BadInput, Damaged, EngineDied
from xlite_search.study_record import StudyRecord
from xlite_search.tracking import entities, store
from xlite_search.tracking.entities import best_name

LOOPBACK = "127.0.0.1"
#: MLflow has pages for two kinds of work, and opens on those for language models
KIND = {"workflowType": "machine_learning"}
POLL_S = 0.1


@dataclass(frozen=True)
class Pages:
    """MLflow's server, listening."""

    port: int
    server: subprocess.Popen[bytes]

    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/#/experiments?{urlencode(KIND)}"

    def newest(self) -> tuple[str, str] | None:
        """Name of the study that was begun last and MLflow knows, and the address of its runs, the best first."""
        found = store.newest_experiment(places.studies())
        if found is None:
            return None
        view = {"viewStateShareKey": entities.BEST_FIRST}
        if f"{entities.VIEW}{entities.BEST_FIRST}" not in found.tags:  # of a study from before there was one
            try:
                metric = StudyRecord.load(places.study_folder(found.name)).metric
            except (Damaged, FileNotFoundError):
                return None
            view = {"orderByKey": f"metrics.`{best_name(metric)}`", "orderByAsc": "false"}
        where = f"experiments/{found.experiment_id}/runs?{urlencode(KIND | view)}"
        return found.name, f"http://{LOOPBACK}:{self.port}/#/{where}"

    def serve(self) -> None:
        """Until Ctrl+C. Raises EngineDied if MLflow's server ends before."""
        try:
            code = self.server.wait()
        except KeyboardInterrupt:
            self.server.terminate()
            self.server.wait()
            return
        raise EngineDied(f"MLflow's server on port {self.port} ended by itself, with exit code {code}")


def start(port: int) -> Pages:
    """Starts MLflow's server, and waits until it listens.

    Raises:
        BadInput: there is nothing to show, or another process has the port.
        EngineDied: the server ended before it listened.
    """
    if not store.is_there():
        raise BadInput(f"{store.database()}: there is nothing to show yet; `run` a study first")
    expect_free(port)
    hosts = f"localhost:{port},{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.tracking_uri()]
    command += ["--host", LOOPBACK, "--port", str(port), "--allowed-hosts", hosts, "--workers", "1"]
    with store.no_folder_of_the_url():
        server = subprocess.Popen(command)
        try:
            while not _listens(port):
                if server.poll() is not None:
                    why = f"MLflow's server ended with exit code {server.returncode} before it listened on port {port}"
                    raise EngineDied(f"{why}; its own words are above")
                time.sleep(POLL_S)
        except BaseException:
            server.terminate()
            server.wait()
            raise
    return Pages(port, server)


def expect_free(port: int) -> None:
    """Raises BadInput if another process listens on the port, or this one may not."""
    with socket.socket() as probe:
        if sys.platform != "win32":  # there it would let two processes have one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise BadInput(
                f"--port {port}: cannot be had on {LOOPBACK} ({error.strerror}); end what listens there, another `ui` "
                f"perhaps, or give another --port"
            ) from None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
