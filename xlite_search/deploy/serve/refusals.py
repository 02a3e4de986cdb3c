"""Refusals: every error of the service has one shape, a code for programs and a sentence for people."""

from __future__ import annotations

#: letters of a sentence: a file may have any number of them where a word is due
LONGEST = 400


class Refusal(Exception):
    """`status` is HTTP's, `code` a word, `again` seconds after which to try again; None: the same gets the same."""

    def __init__(self, status: int, code: str, sentence: str, again: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.again = status, code, sentence, again

    def as_json(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "sentence": self.sentence[:LONGEST]}}
