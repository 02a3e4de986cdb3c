"""Metrics of the service for Prometheus: requests by address and status, times, flags, decisions. No name, no tag, no
pixel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from xlite_search.deploy.serve.replies import Reply

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """In a registry of its own, so that two services in a process do not mix."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, at_work: Callable[[], float]) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("xlite_requests", "Requests", ("address", "status"), registry=own)
        self.seconds = Histogram("xlite_request_seconds", "To answer", ("address",), buckets=SECONDS, registry=own)
        self.flags = Counter("xlite_flags", "Images unlike the training images", ("flag",), registry=own)
        self.refused = Counter("xlite_refused_images", "Images that could not be used", ("code",), registry=own)
        self.decisions = Counter("xlite_decisions", "Images by decision", ("finding", "decision"), registry=own)
        self._decisions: dict[tuple[str, bool | None], Counter] = {}
        Gauge("xlite_requests_at_work", "Requests at work or waiting", registry=own).set_function(at_work)

    @contextmanager
    def timed(self) -> Iterator[Callable[[str, int], None]]:
        """Gives what is told the address and the status once they are known."""
        begun = time.perf_counter()

        def done(address: str, status: int) -> None:
            self.requests.labels(address, str(status)).inc()
            self.seconds.labels(address).observe(time.perf_counter() - begun)

        yield done

    def answered(self, reply: Reply) -> None:
        """Counts an answer's flags and decisions."""
        for flag in reply.flags:
            self.flags.labels(flag.code).inc()
        for each in reply.findings:
            self._decided(each.finding, each.decision).inc()

    def _decided(self, finding: str, decision: bool | None) -> Counter:
        """Kept, for finding a counter by its labels takes longer than counting."""
        key = (finding, decision)
        if key not in self._decisions:
            said = "none" if decision is None else "yes" if decision else "no"
            self._decisions[key] = self.decisions.labels(finding, said)
        return self._decisions[key]

    def text(self) -> bytes:
        return generate_latest(self.registry)
