"""Power cuts and damage, for the tests of what is kept: nothing that a process does after a cut reaches the disk."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest


class PowerCut(BaseException):
    """Nothing catches it, as nothing catches the real one."""


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


class Power:
    """Fails at the n-th write, fsync, rename or removal; a cut write leaves half of its bytes."""

    def __init__(self, patch: pytest.MonkeyPatch, n: int) -> None:
        self.left, self.cut = n, False
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, self.counted(getattr(os, name)))
        real = builtins.open

        def open_counted(path: Any, mode: str = "r", **options: Any) -> Any:
            file = real(path, mode, **options)
            return file if mode in ("r", "rb") else CountedFile(file, self)

        patch.setattr(builtins, "open", open_counted)

    def spend(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.cut = True
            raise PowerCut

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*args: Any, **options: Any) -> Any:
            self.spend()
            return call(*args, **options)

        return doing


class CountedFile:
    def __init__(self, file: IO[Any], power: Power) -> None:
        self.file, self.power = file, power

    def write(self, data: bytes) -> int:
        try:
            self.power.spend()
        except PowerCut:
            self.file.write(data[: len(data) // 2])
            self.file.close()
            raise
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> CountedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def steps_of(action: Callable[[], object]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        power = Power(patch, 10_000)
        action()
        return 10_000 - power.left


def cut_at(n: int, action: Callable[[], object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        power = Power(patch, n)
        with pytest.raises(PowerCut):
            action()
        assert power.cut
