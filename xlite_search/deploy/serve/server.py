"""Server: uvicorn over the service, with deadlines for slow connections, and an end that finishes what was taken."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from xlite_search.deploy.serve.app import application
from xlite_search.deploy.serve.guard import Guard
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.deploy.serve.service import Service

#: seconds that a request's head may take, that an idle connection is kept, and that an end waits for what was taken
HEAD, IDLE, ENDING = 4.0, 15, 8
#: seconds that an idle connection is kept when the end has come: a request may be on its way
LAST = 0.2
#: bytes of answers that wait for who does not read them, and seconds until a connection with more is cut off
UNREAD, STALLED = 16 << 20, 20.0


def _last_words(status: str, why: Refusal) -> bytes:
    """An answer where there is no request to answer, in the shape of every error."""
    body = json.dumps(why.as_json()).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


SLOW = _last_words("408 Request Timeout", Refusal(408, "slow", "the head of the request came too slowly"))
MALFORMED = _last_words("400 Bad Request", Refusal(400, "malformed", "this is no request of HTTP/1.1 that can be read"))


class Joined:
    """A transport that sends what is written in one turn of the loop as one: an answer's head and its body."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(piece)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._pieces:
            self._transport.write(b"".join(self._pieces))
            self._pieces = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(H11Protocol):
    """HTTP/1.1 where the head of a request has a deadline: uvicorn waits for it as long as it takes."""

    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _ending = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]
        transport.set_write_buffer_limits(high=UNREAD)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._at_work:
            self._unwatch()
            self.cycle.keep_alive &= not self._ending
        elif self._late is None and not self.transport.is_closing():
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._at_work:
            self._unwatch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        self._read_on()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._read_on()
        self._unwatch()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if not (self._at_work and self.cycle.response_started):
            self.transport.write(MALFORMED)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """A request to upgrade is answered as any other, and no reason to write to the log."""

    def shutdown(self) -> None:
        """Ends the connection once what is at work is answered, and what came before the end and is not read yet."""
        self._ending = True
        if self._at_work:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(LAST, self._end_if_idle)

    @property
    def _at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_if_idle(self) -> None:
        if not self._at_work:
            self.transport.close()

    def _watch(self) -> None:
        self._late = self.loop.call_later(HEAD, self._too_late)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _too_late(self) -> None:
        self._late = None
        if not self.transport.is_closing() and not self._at_work:
            self.transport.write(SLOW)
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but that connections which wait to be accepted are accepted first."""
        loop = asyncio.get_running_loop()
        for listening in sockets or []:
            with suppress(BlockingIOError):
                while True:
                    connection, _ = listening.accept()
                    connection.setblocking(False)
                    await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)


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
    family = socket.AF_INET6 if ":" in own.config.host else socket.AF_INET
    listening = socket.create_server((own.config.host, own.config.port), family=family, backlog=own.config.backlog)
    begun(listening.getsockname()[1])
    await own.serve(sockets=[listening])
