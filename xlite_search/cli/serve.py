"""Verb on an exported model: serve."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from xlite_search.errors import BadInput

INSTALL = "pip install 'xlite-search[serve]'"


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `export` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen at; another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="XLITE_TOKEN", show_default=False, help="What whoever asks has to say.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse images that are unlike the training images.")
    ] = False,
) -> None:
    """Serves an exported model over HTTP, with a page for a browser; needs no PyTorch.

    Ctrl+C and SIGTERM end it once what was taken is answered.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as missing:
        raise BadInput(f"{missing.name} is not installed; {INSTALL}") from None
    from xlite_search.deploy.serve.guard import Guard
    from xlite_search.deploy.serve.server import serve as served
    from xlite_search.deploy.serve.service import opened

    host = host.removeprefix("[").removesuffix("]")
    guard = Guard.of(host, token if token.isspace() else token.strip())
    service = opened(folder, strict=strict)
    try:
        service.check()
    except BaseException:
        service.close()
        raise

    def begun(chosen: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        print(f"ready: http://{shown}:{chosen} serves '{service.name}'; Ctrl+C ends it", flush=True)

    try:
        served(service, guard, host, port, begun)
    except OSError as error:
        other, why = "--host", error.strerror
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            other, why = "--port", os.strerror(error.errno)
        raise BadInput(f"--host {host} --port {port}: {why}; give another {other}") from None
    left = f"{service.unanswered} requests were cut off" if service.unanswered else "what was taken is answered"
    print(f"ended; {left}", file=sys.stderr)
