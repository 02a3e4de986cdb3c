"""Server: uvicorn over the service, with deadlines for slow connections, and an end that finishes what was taken."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from xlite_search.deploy.serve.app import application
from xlite_search.deploy.serve.guard import Guard
from xlite_search.deploy.serve.service import Service

#: seconds that a request's head may take, that an idle connection is kept, and that an end waits for what was taken
HEAD, IDLE, ENDING = 5.0, 15, 8
SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
)
SLOW_BODY = b'{"error":{"code":"slow","sentence":"the head of the request came too slowly"}}'


class Protocol(H11Protocol):
    """HTTP/1.1 where the head of a request has a deadline: uvicorn waits for it as long as it takes."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._late is None and not self.transport.is_closing():
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._late = self.loop.call_later(HEAD, self._too_late)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(SLOW % len(SLOW_BODY) + SLOW_BODY)
            self.transport.close()


class Server(uvicorn.Server):
    """Ctrl+C and SIGTERM end it once what was taken is answered, and that is no failure."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ending = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]
        before = {each: signal.signal(each, self.handle_exit) for each in ending}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def server(service: Service, guard: Guard, host: str, port: int, *, log: str = "warning") -> Server:
    """Not begun yet; `run()` returns once it has ended."""
    return Server(
        uvicorn.Config(
            application(service, guard),
            host=host,
            port=port,
            http=Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_level=log,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=ENDING,
            backlog=2048,
        )
    )


def raise_file_limit() -> None:
    """As many connections as the system allows this process."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(service: Service, guard: Guard, host: str, port: int, begun: Callable[[int], None]) -> None:
    """Serves until it is told to end; `begun` is told the port once it listens.

    Raises OSError if the address is taken.
    """
    raise_file_limit()
    own = server(service, guard, host, port)
    try:
        asyncio.run(_served(own, begun))
    finally:
        service.close()


async def _served(own: Server, begun: Callable[[int], None]) -> None:
    import socket

    family = socket.AF_INET6 if ":" in own.config.host else socket.AF_INET
    listening = socket.create_server((own.config.host, own.config.port), family=family, backlog=own.config.backlog)
    begun(listening.getsockname()[1])
    await own.serve(sockets=[listening])
