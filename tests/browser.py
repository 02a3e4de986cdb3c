"""Headless Chromium by its DevTools protocol over a pipe: pages opened, looked at, and used as a person would."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60.0


class Browser:
    """One page. Messages are JSON, each ended by a zero byte."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number, self._rest = write, read, 0, b""
        self.session = ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.trouble: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            said = self._message()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])
        raise TimeoutError(method)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], SECONDS)[0]:
                raise TimeoutError(f"the browser has said nothing for {SECONDS:g} s")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise EOFError("the browser is gone")
            self._rest += piece
        whole, _, self._rest = self._rest.partition(b"\0")
        said = dict(json.loads(whole))
        if "method" in said:
            self.events.append(said)
        if said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
            self.trouble.append(said["params"]["entry"]["text"])
        if said.get("method") == "Runtime.exceptionThrown":
            self.trouble.append(str(said["params"]["exceptionDetails"]))
        return said

    def open(self, address: str, width: int, height: int, *, dark: bool = False) -> None:
        """Opens an address in a window of that size, and waits until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """Of JavaScript, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Waits until an expression is true; polled by the page itself, a frame at a time."""
        wait = (
            f"new Promise(done => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20); look(); }})"
        )
        assert self.value(wait)

    def event(self, method: str) -> dict[str, Any]:
        """What an event says, the first of its kind that comes."""
        while True:
            for said in self.events:
                if said["method"] == method:
                    self.events.remove(said)
                    return dict(said["params"])
            self._message()

    def until_file(self, path: Path) -> None:
        """Waits until a download is complete."""
        until = time.monotonic() + SECONDS
        while self.event("Browser.downloadProgress")["state"] != "completed":
            assert time.monotonic() < until
        assert path.is_file()

    def drop(self, selector: str, *files: Path) -> None:
        """Drops files on an element."""
        middle = "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        box = self.value(f"{middle}(document.querySelector('{selector}').getBoundingClientRect())")
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; ended, whatever happens."""
    assert PROGRAM
    there_read, here_write = os.pipe()
    here_read, there_write = os.pipe()

    def wired() -> None:
        ends = os.dup(there_read), os.dup(there_write)  # either may be 3 or 4 itself
        for end, number in zip(ends, (3, 4), strict=True):
            os.dup2(end, number)

    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
    process = subprocess.Popen(
        [PROGRAM, *arguments, f"--user-data-dir={profile}", "about:blank"],
        close_fds=False,
        preexec_fn=wired,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there_read)
    os.close(there_write)
    try:
        yield Browser(here_write, here_read)
    finally:
        process.kill()
        process.wait()
        os.close(here_write)
        os.close(here_read)
