"""A watched folder: each file that comes is answered once, whatever happens to the process."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from exported import CLASSES, drawn, gray, handmade
from test_cli import call

from xlite_search import storage
from xlite_search.deploy import watch
from xlite_search.deploy.answers import as_csv
from xlite_search.deploy.domain import fit_domain
from xlite_search.deploy.predict import Predictor
from xlite_search.deploy.serve.decoders import BusyError, Decoded, DecoderEndedError, Decoders
from xlite_search.deploy.watch import ANEW, FOLDER, LARGEST, TABLE, TRIES, Watch, watching
from xlite_search.errors import BadInput

THRESHOLDS = {"Mass": 0.25}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return handmade(tmp_path / "m", thresholds=THRESHOLDS)


@pytest.fixture
def come(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@contextmanager
def watched(folder: Path, come: Path, into: Path) -> Iterator[Watch]:
    with watching(come, Predictor.open(folder), into) as found:
        yield found


def table(into: Path) -> list[dict[str, str]]:
    with open(into / TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def looked(of: Watch, times: int = 2) -> list[str]:
    """The files that so many looks answer."""
    return [line.seen.file for _ in range(times) for line in of.look()]


def test_a_file_is_answered_once_as_predict_answers_it(folder: Path, come: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    with watched(folder, come, into) as of:
        (come / "ward").mkdir()
        paths = [drawn(come / "a.png"), drawn(come / "ward" / "b.png", 1)]
        assert looked(of, 1) == [] and looked(of, 1) == ["a.png", "ward/b.png"] and looked(of, 3) == []
    predictor = Predictor.open(folder)
    for row, path in zip(table(into), paths, strict=True):
        answer = predictor.of_file(path)
        assert [np.float32(row[name]) for name in CLASSES] == answer.probabilities.tolist()
        assert row["found"] == ("Mass" if predictor.decisions(answer)[0] else "") and row["error"] == ""
        assert row["bytes"] == str(path.stat().st_size) and row["modified"].endswith("Z") and len(row["model"]) == 12


def test_who_begins_again_answers_nothing_twice(folder: Path, come: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    drawn(come / "a.png")
    for expected in (["a.png"], [], []):
        with watched(folder, come, into) as of:
            assert looked(of, 3) == expected
    drawn(come / "b.png", 1)
    drawn(come / "a.png", 2)  # another image under a name that was there
    with watched(folder, come, into) as of:
        assert looked(of, 3) == ["a.png", "b.png"]
    assert [row["file"] for row in table(into)] == ["a.png", "a.png", "b.png"]


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_half_a_line_of_a_power_cut_is_cut_off_and_answered_again(
    folder: Path, come: Path, tmp_path: Path, lost: int
) -> None:
    into = tmp_path / "out"
    for row, name in enumerate(("a.png", "b.png")):
        drawn(come / name, row)
    with watched(folder, come, into) as of:
        looked(of)
    whole = (into / TABLE).read_bytes()
    (into / TABLE).write_bytes(whole[:-lost])
    with watched(folder, come, into) as of:
        assert looked(of, 3) == ["b.png"]
    assert (into / TABLE).read_bytes() == whole


def test_a_file_that_grows_is_waited_for_and_one_that_is_renamed_is_taken(
    folder: Path, come: Path, tmp_path: Path
) -> None:
    body = drawn(tmp_path / "x.png").read_bytes()
    with watched(folder, come, tmp_path / "out") as of:
        for size in (10, 500, len(body)):
            (come / "slow.png").write_bytes(body[:size])
            (come / "beside.png.part").write_bytes(body)
            (come / ".hidden").write_bytes(body)
            assert looked(of, 1) == []
        assert looked(of, 1) == ["slow.png"]
        (come / "beside.png.part").rename(come / "beside.png")
        assert looked(of) == ["beside.png"]
    assert [row["error"] for row in table(tmp_path / "out")] == ["", ""]


def test_what_is_of_no_use_has_its_reason_once(folder: Path, come: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    (come / "empty.png").touch()
    (come / "letter.txt").write_text("hello")
    (come / "cut.png").write_bytes(drawn(tmp_path / "x.png").read_bytes()[:200])
    with open(come / "huge.png", "wb") as file:
        file.truncate(LARGEST + 1)
    with watched(folder, come, into) as of:
        assert looked(of, 3) == ["cut.png", "empty.png", "huge.png", "letter.txt"]
    said = {row["file"]: row["error"] for row in table(into)}
    assert said["empty.png"] == "empty (0 bytes)" and said["letter.txt"] == "not a PNG, JPEG or DICOM file"
    assert said["huge.png"] == "larger than 256 MiB" and said["cut.png"]
    assert all(row[name] == "" for row in table(into) for name in CLASSES)


def test_what_cannot_be_read_or_written_now_is_tried_again(
    folder: Path, come: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drawn(come / "a.png")

    def kept(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    def locked(self: watch.Table, line: watch.Line) -> None:
        raise PermissionError(13, "Permission denied", str(self.path))

    with watched(folder, come, tmp_path / "out") as of:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", kept)
            assert looked(of, 3) == [] and of.troubles == {"a.png": f"{path}: Permission denied; tried again"}
        with monkeypatch.context() as patch:
            patch.setattr(watch.Table, "append", locked)
            assert looked(of, 3) == [] and list(of.troubles) == [TABLE]
        assert looked(of, 1) == ["a.png"] and of.troubles == {}


def test_what_is_unlike_the_training_images_is_flagged(folder: Path, come: Path, tmp_path: Path) -> None:
    import cv2

    paths = [drawn(tmp_path / f"{row}.png", row) for row in range(80)]
    of_one = Predictor.open(folder)
    cv2.imwrite(str(come / "negative.png"), 255 - gray(paths[0]))
    with watched(folder, come, tmp_path / "out") as of:
        of.domain = fit_domain(np.array([of_one.prepared(path) for path in paths]), [str(row) for row in range(80)])
        assert looked(of) == ["negative.png"]
    assert "black and white" in table(tmp_path / "out")[0]["flags"]


def test_answers_inside_the_watched_folder_are_no_images(folder: Path, come: Path) -> None:
    drawn(come / "a.png")
    with watched(folder, come, come / "answers") as of:
        assert looked(of, 4) == ["a.png"]


def test_another_table_and_a_second_watch_are_refused(folder: Path, come: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    into.mkdir()
    storage.write_atomic(into / TABLE, b"file,bytes\n")
    with pytest.raises(BadInput, match="a table of other findings"), watched(folder, come, into):
        pass
    (into / TABLE).unlink()
    with watched(folder, come, into), pytest.raises(BadInput, match="is being run"), watched(folder, come, into):
        pass


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--watch", "IN"], "--watch FOLDER and --into FOLDER go together"),
        (["--into", "OUT"], "--watch FOLDER and --into FOLDER go together"),
        (["--watch", "IN", "--into", "OUT", "x.png"], "no FILES"),
        (["--watch", "IN", "--into", "OUT", "--json"], "no --json"),
        (["--watch", "IN", "--into", "IN"], "is the watched folder"),
        (["--watch", "NONE", "--into", "OUT"], "is no folder"),
    ],
)
def test_what_makes_no_sense_is_refused(
    folder: Path, come: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    places = {"IN": come, "OUT": tmp_path / "out", "NONE": tmp_path / "none"}
    code, _, err = call(capsys, "predict", str(folder), *(str(places.get(word, word)) for word in more))
    assert code == 2 and says in err and "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_it_and_the_same_command_goes_on(folder: Path, come: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    drawn(come / "a.png")
    command = [sys.executable, "-m", "xlite_search", "predict", str(folder), "--watch", str(come), "--into", str(into)]
    for before in ("0 answered before", "1 answered before"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert before in process.stdout.readline()
            if before.startswith("0"):
                assert process.stdout.readline().startswith("a.png: ")
            used = _seconds(process.pid)
            time.sleep(3)
            assert _seconds(process.pid) - used < 0.5, "it rests between looks"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert process.returncode == 130 and out == "" and "the same command goes on" in err
    assert [row["file"] for row in table(into)] == ["a.png"]


def _seconds(pid: int) -> float:
    """That a process has computed."""
    import psutil

    return sum(psutil.Process(pid).cpu_times()[:2])


def test_odd_names_have_a_line_each(folder: Path, come: Path, tmp_path: Path) -> None:
    names = ["a,b.png", 'quote".png', "肺.png", *([] if os.name == "nt" else ["two\nlines.png"])]
    for name in names:
        drawn(tmp_path / "x.png").rename(come / name)
    with watched(folder, come, tmp_path / "out") as of:
        assert len(looked(of, 3)) == len(names)
    assert {row["file"] for row in table(tmp_path / "out")} == {" ".join(name.splitlines()) for name in names}
    with watched(folder, come, tmp_path / "out") as of:
        assert looked(of, 3) == []


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="their names are Unicode")
def test_a_name_that_is_not_utf8_leaves_the_table_readable(folder: Path, come: Path, tmp_path: Path) -> None:
    drawn(tmp_path / "x.png").rename(come / os.fsdecode(b"b\xff.png"))
    for expected in (["b\\udcff.png"], []):
        with watched(folder, come, tmp_path / "out") as of:
            assert looked(of, 3) == expected
    assert [row["file"] for row in table(tmp_path / "out")] == ["b\\udcff.png"]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", *([] if os.name == "nt" else ["\t"])])
def test_a_name_is_no_formula(folder: Path, come: Path, tmp_path: Path, sign: str) -> None:
    name = f"{sign}1+cmd.png"
    drawn(tmp_path / "x.png").rename(come / name)
    for expected in ([f"'{name}"], []):
        with watched(folder, come, tmp_path / "out") as of:
            assert looked(of, 3) == expected
    assert [row["file"] for row in table(tmp_path / "out")] == [f"'{name}"]
    predictor = Predictor.open(folder)
    answer = dataclasses.replace(predictor.of_file(come / name), file=name)
    assert {row["file"] for row in csv.DictReader(io.StringIO(as_csv(predictor, [answer])))} == {f"'{name}"}


@pytest.mark.parametrize("why", [DecoderEndedError("ended"), TimeoutError("too long"), BusyError("busy")])
@pytest.mark.parametrize("fails", [TRIES - 1, TRIES])
def test_a_decoder_that_fails_is_tried_again_before_a_line_says_so(
    folder: Path, come: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: Exception, fails: int
) -> None:
    drawn(come / "a.png")
    with watched(folder, come, tmp_path / "out") as of:
        good, left = Decoders.__call__, [why] * fails

        def decoded(self: Decoders, body: bytes) -> Decoded:
            if left:
                raise left.pop()
            return good(self, body)

        monkeypatch.setattr(Decoders, "__call__", decoded)
        assert looked(of, TRIES) == [] and of.troubles == {"a.png": f"a.png: {why}; tried {TRIES - 1} of {TRIES} times"}
        assert looked(of, 1) == ["a.png"] and looked(of) == [] and of.troubles == {}
    (row,) = table(tmp_path / "out")
    assert row["error"] == (str(why) if fails == TRIES else "") and bool(row["Mass"]) == (fails < TRIES)


def test_a_table_that_is_taken_away_is_begun_anew(folder: Path, come: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    drawn(come / "a.png")
    with watched(folder, come, into) as of:
        assert looked(of) == ["a.png"]
        (into / TABLE).unlink()
        drawn(come / "b.png", 1)
        assert looked(of, 1) == ["a.png"] and "was gone: begun anew" in of.troubles[ANEW]
        assert looked(of, 1) == ["b.png"] and of.troubles == {}
        for row, name in enumerate(("c.png", "d.png"), 2):
            drawn(come / name, row)
        assert looked(of, 1) == []
        for line in of.look():  # it goes between two lines
            assert line.seen.file == "c.png"
            (into / TABLE).unlink()
        assert list(of.troubles) == [TABLE] and not (into / TABLE).exists()
        assert looked(of) == ["c.png", "d.png", "a.png", "b.png"]
    assert [row["file"] for row in table(into)] == ["c.png", "d.png", "a.png", "b.png"]


@pytest.mark.skipif(os.name == "nt", reason="a folder whose lock is held keeps its name there")
def test_a_table_whose_folder_is_away_is_waited_for(folder: Path, come: Path, tmp_path: Path) -> None:
    into, away = tmp_path / "out", tmp_path / "away"
    drawn(come / "a.png")
    with watched(folder, come, into) as of:
        assert looked(of) == ["a.png"]
        into.rename(away)
        drawn(come / "b.png", 1)
        assert looked(of) == [] and list(of.troubles) == [TABLE] and not into.exists()
        away.rename(into)
        assert looked(of) == ["b.png"] and of.troubles == {}


def test_a_watched_folder_that_is_away_is_waited_for(folder: Path, come: Path, tmp_path: Path) -> None:
    drawn(come / "a.png")
    with watched(folder, come, tmp_path / "out") as of:
        assert looked(of) == ["a.png"]
        come.rename(tmp_path / "away")
        drawn(tmp_path / "away" / "b.png", 1)
        assert looked(of) == [] and list(of.troubles) == [FOLDER] and "; waiting for it" in of.troubles[FOLDER]
        (tmp_path / "away").rename(come)
        assert looked(of, 1) == [] and looked(of, 1) == ["b.png"] and of.troubles == {}


def test_what_a_system_leaves_in_folders_and_links_to_folders_are_passed_over(
    folder: Path, come: Path, tmp_path: Path
) -> None:
    for name in ("Thumbs.db", "desktop.ini"):
        (come / name).write_bytes(b"x")
    if os.name != "nt":
        (come / "linked").symlink_to(folder, target_is_directory=True)
    with watched(folder, come, tmp_path / "out") as of:
        assert looked(of, 3) == []
