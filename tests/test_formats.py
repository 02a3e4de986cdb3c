"""The same tables for a paper: nothing that a label holds is taken for markup."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from xlite_search.results.columns import Column, Table
from xlite_search.results.formats import escaped, latex, markdown

WORDS = Column("trial", ["a_b & 50 %", "x|y `z`"], text=True)
TABLE = Table("AUROC > 0.5", [Column("#", ["1", "2"]), WORDS, Column("best", ["0.81", "0.80"])], ["chance: 0.5"])


def test_markdown() -> None:
    assert markdown(["a | b", TABLE]).split("\n") == [
        r"a \| b",
        "",
        "**AUROC > 0.5**",
        "",
        "| # | trial | best |",
        "| ---: | --- | ---: |",
        "| 1 | `a_b & 50 %` | 0.81 |",
        r"| 2 | `x\|y 'z'` | 0.80 |",
        "",
        "chance: 0.5",
        "",
    ]


def test_latex() -> None:
    assert latex(["50 %", TABLE]).split("\n") == [
        r"50 \%",
        "",
        r"\begin{table}",
        r"\caption{AUROC \textgreater{} 0.5}",
        r"\begin{tabular}{rlr}",
        r"\toprule",
        r"\# & trial & best \\",
        r"\midrule",
        r"1 & a\_b \& 50 \% & 0.81 \\",
        r"2 & x\textbar{}y `z` & 0.80 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize chance: 0.5",
        r"\end{table}",
        "",
    ]


@given(st.text(alphabet=r"ab\~^<>|&%$#_{} "))
def test_no_sign_of_latex_is_left_a_command(text: str) -> None:
    without = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", escaped(text))
    assert not set(without) & set(r"\~^<>|&%$#_{}")
