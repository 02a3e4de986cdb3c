"""Figures of a report: SVG that is text where it is text, the same bytes for the same data, whatever the names hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from xlite_search.reports.curves import LearningCurve, Panel, learning, multiples
from xlite_search.reports.drawing import GRAY, WIDTH, inline, wrapped
from xlite_search.reports.forest import Estimate, forest
from xlite_search.reports.heatmap import heatmap
from xlite_search.reports.shares import Share, shares

TEXT = "{http://www.w3.org/2000/svg}text"
NAN = float("nan")
ODD = 'a<b>&"c" $x_1$ \x1b[31m 肺 ' + "efficientnet_b0_mhsa " * 5
GRID = np.linspace(0, 1, 11)
NOWHERE = np.full(11, NAN)


def of_forest(name: str) -> bytes:
    rows = [Estimate(name, 0.8, 0.7, 0.9, "0.8000", strong=True), Estimate("unknown", 0.7, NAN, NAN, faded=True)]
    return forest(rows, name, name, reference=0.8, margin=0.002, sides=("worse", "better"))


def of_one_row(name: str) -> bytes:
    return forest([Estimate(name, NAN, NAN, NAN)], name, name)


def of_learning(name: str) -> bytes:
    curves = [
        LearningCurve(name, [0.5, NAN, 0.7], best=3, strong=True),
        LearningCurve("x", [0.6], cut=True),
        LearningCurve("y", []),
    ]
    return learning(curves, name, name, chance=0.5)


def of_panels(name: str) -> bytes:
    panels = [Panel(name, "0.8", GRID, GRID**0.5, GRID, GRID**0.7, GRID**0.4)] * 4
    panels.append(Panel("rare", "-", GRID, 1 - GRID, GRID, NOWHERE, NOWHERE, level=0.1, faded=True))
    return multiples(panels, name, name, name)


def of_heatmap(name: str) -> bytes:
    values = np.array([[0.8, NAN], [0.7, 0.9]])
    return heatmap(values, np.array([[2, 0], [1, 1]]), (name, [name, "b"]), ("kd.tau", ["1", name]), name)


def of_shares(name: str) -> bytes:
    return shares([Share(name, 0.1, 0.3), Share("No Finding", 0.5, 0.0)], name, "of draws")


FIGURES = [of_forest, of_one_row, of_learning, of_panels, of_heatmap, of_shares]


@pytest.mark.parametrize("draw", FIGURES)
def test_text_is_text_and_bytes_are_of_what_is_drawn(draw: Callable[[str], bytes]) -> None:
    drawn = draw("tau=4")
    assert drawn == draw("tau=4") != draw("tau=8")
    root = ElementTree.fromstring(drawn)
    assert "tau=4" in {"".join(text.itertext()) for text in root.iter(TEXT)}
    assert root.get("width") == f"{WIDTH:g}pt", "one width for all, which a telephone can show"
    assert b"<metadata" not in drawn


@pytest.mark.parametrize("draw", FIGURES)
def test_names_with_markup_and_mathematics_are_written_as_they_are(draw: Callable[[str], bytes]) -> None:
    root = ElementTree.fromstring(draw(ODD))
    written = " ".join("".join(text.itertext()) for text in root.iter(TEXT))
    for part in ('a<b>&"c"', "$x_1$", "肺", "\N{REPLACEMENT CHARACTER}[31m"):
        assert part in written


def test_figures_of_one_page_share_no_ids_and_bring_no_style() -> None:
    page = "".join(inline(draw("x"), f"figure{n}", 'of "x" & <y>') for n, draw in enumerate(FIGURES))
    root = ElementTree.fromstring(f"<page>{page}</page>")
    found = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(found) == len(set(found)) > 0
    used = set(re.findall(r"(?:href=\"|url\()#([\w.-]+)", page))
    assert used <= set(found), "nothing refers to what is not there"
    assert "<style" not in page and "<?xml" not in page and "<!" not in page
    assert [svg.get("aria-label") for svg in root] == ['of "x" & <y>'] * len(FIGURES)


def test_what_is_faded_is_gray_and_what_is_unknown_has_no_interval() -> None:
    known = forest([Estimate("a", 0.5, 0.4, 0.6)], "h", "x")
    unknown = forest([Estimate("a", 0.5, NAN, NAN)], "h", "x")
    faded = forest([Estimate("a", 0.5, 0.4, 0.6, faded=True)], "h", "x")
    assert known.count(b"line2d") > unknown.count(b"line2d")
    assert faded.count(GRAY.lower().encode()) > known.count(GRAY.lower().encode()) == 0


def test_only_four_courses_have_colours_and_names() -> None:
    drawn = learning([LearningCurve(f"run {n}", [0.5, 0.6], strong=True) for n in range(6)], "h", "x")
    written = {"".join(text.itertext()) for text in ElementTree.fromstring(drawn).iter(TEXT)}
    assert {f"run {n}" for n in range(4)} | {"the other runs"} <= written
    assert not {"run 4", "run 5"} & written


def test_a_long_word_is_cut_after_a_mark_and_the_first_line_leaves_room() -> None:
    assert wrapped("mobilenetv3_large_100", 16) == ["mobilenetv3_", "large_100"]
    assert wrapped("a loss=focal(gamma=2)", 20) == ["a", "loss=focal(gamma=2)"], "what fits in a line is not cut"
    assert wrapped("x" * 21, 10) == ["x" * 10, "x" * 10, "x"]
    assert wrapped("b0_mhsa lr=0.001 seed=0", 20, 10) == ["b0_mhsa", "lr=0.001 seed=0"]
    assert wrapped("", 10) == wrapped(" ", 10, 5) == [""]
