"""What a best epoch answered is read as it was written, and never runs code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlite_search.errors import Damaged
from xlite_search.training.predictions import Predictions


def some() -> Predictions:
    logits = np.array([[0.1, -1e9], [1e9, 3.0], [0.0, -2.0]], np.float32)
    return Predictions.of(logits, ("a.png", "b_long_name.png", "c.png"), ("Mass", "Hernia"))


def test_what_was_written_is_read_and_always_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(some().to_bytes())
    found = Predictions.load(path)
    assert (found.images, found.classes) == (some().images, some().classes)
    assert np.array_equal(found.logits, some().logits)
    assert found.logits.tolist()[1] == [65504, 3]
    assert some().to_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        some().to_bytes()[:-40],
        npz(logits=np.zeros((2, 2), np.float16)),
        npz(logits=np.zeros((2, 2), np.float16), images=np.array(["a"]), classes=np.array(["x", "y"])),
        npz(logits=np.zeros((1, 1)), images=np.array(["a"]), classes=np.array(["x"])),
        npz(logits=np.zeros((1, 1), np.float16), images=np.array("a"), classes=np.array(["x"])),
        npz(logits=np.zeros((1, 1), np.float16), images=np.array([1]), classes=np.array(["x"])),
        npy(np.zeros((1, 1), np.float16)),
        npy(np.array([Evil()], object)),
        npz(logits=np.array([[Evil()]], object), images=np.array(["a"]), classes=np.array(["x"])),
    ],
)
def test_what_is_no_such_file_is_refused_and_runs_no_code(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(Damaged, match=r"p.npz holds no predictions"):
        Predictions.load(tmp_path / "p.npz")
    assert not (tmp_path / "ran").exists()


def test_a_flipped_bit_is_damage_or_without_effect_and_nothing_else(tmp_path: Path) -> None:
    path, good = tmp_path / "p.npz", some().to_bytes()
    damaged = 0
    for place in range(len(good)):
        for bit in (0, 3, 5):
            data = bytearray(good)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            try:
                Predictions.load(path)
            except Damaged:
                damaged += 1
    assert damaged > len(good)
