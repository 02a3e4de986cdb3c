"""Answers of an exported model as a table, as CSV and as JSON: logit, probability and decision of each finding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xlite_search.deploy.predict import Answer, Predictor
from xlite_search.storage import csv_text

HEADER = ("file", "finding", "logit", "probability", "threshold", "decision", "flags")
#: what four digits tell from 0
LEAST = 0.0001
#: digits that tell any two numbers between 0 and 1 apart that matter
MOST = 17
#: what a spreadsheet takes for the beginning of a formula
FORMULA = ("=", "+", "-", "@", "\t", "\r")
SAID = {True: "yes", False: "no", None: ""}


def rows_of(predictor: Predictor, answer: Answer) -> Iterator[tuple[str, str, float, float, float | None, bool | None]]:
    """File, finding, logit, probability, threshold, decision; None where there is no threshold."""
    manifest = predictor.manifest
    columns = (manifest.classes, answer.logits.tolist(), answer.probabilities.tolist(), predictor.decisions(answer))
    for name, logit, chance, decision in zip(*columns, strict=True):
        yield answer.file, name, logit, chance, manifest.thresholds.get(name), decision


def as_table(predictor: Predictor, answers: Sequence[Answer]) -> str:
    """Each file's name, and a line for each finding below it, the most probable first."""
    width = max(map(len, predictor.manifest.classes))
    lines = []
    for answer in answers:
        lines.append(answer.file)
        lines.extend(f"  unusual image: {flag.says}" for flag in answer.flags)
        found = sorted(rows_of(predictor, answer), key=lambda row: -row[3])
        head = f"  {'finding':<{width}}  {'logit':>8}  {'probability':>11}"
        lines.append(f"{head}  {'threshold':>9}  decision" if predictor.manifest.thresholds else head)
        for _, name, logit, chance, threshold, decision in found:
            shown, limit = _told_apart(chance, threshold)
            line = f"  {name:<{width}}  {logit:>8.3f}  {shown:>11}"
            lines.append(f"{line}  {limit:>9}  {SAID[decision]}".rstrip() if predictor.manifest.thresholds else line)
    return "\n".join(lines)


def _told_apart(chance: float, threshold: float | None) -> tuple[str, str]:
    """A probability and its threshold with four digits, or as many as show which is larger."""
    if threshold is None:
        return _chance(chance), ""
    if chance == threshold or f"{chance:.4f}" != f"{threshold:.4f}":
        return _chance(chance), f"{threshold:.4f}"
    digits = next((each for each in range(5, MOST) if f"{chance:.{each}f}" != f"{threshold:.{each}f}"), MOST)
    return f"{chance:.{digits}f}", f"{threshold:.{digits}f}"


def _chance(probability: float) -> str:
    """Four digits; what they do not tell from none or from certainty is said to be so."""
    if probability < LEAST:
        return f"<{LEAST}"
    return f">{1 - LEAST}" if probability > 1 - LEAST else f"{probability:.4f}"


def cell(text: str) -> str:
    """Text as a table has it: no formula, and UTF-8, whatever a file's name is; what is so already stays as it is."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA) else text


def as_csv(predictor: Predictor, answers: Sequence[Answer]) -> str:
    """One line for each file and finding, with all digits that a float32 has."""
    lines = []
    for answer in answers:
        flags = " ".join(flag.name for flag in answer.flags)
        for file, name, logit, chance, threshold, decision in rows_of(predictor, answer):
            limit = "" if threshold is None else threshold
            lines.append((cell(file), cell(name), f"{logit:.9g}", f"{chance:.9g}", limit, SAID[decision], flags))
    return csv_text(HEADER, lines).rstrip("\n")


def as_json(predictor: Predictor, answers: Sequence[Answer]) -> str:
    """Every file, those too that cannot be used, with the model that answered."""
    about = predictor.manifest
    model = {"model": about.model, "name": about.name, "sha256": about.sha256, "calibration": about.calibration}
    return json.dumps(model | {"images": [_image(predictor, answer) for answer in answers]}, indent=1)


def _image(predictor: Predictor, answer: Answer) -> dict[str, Any]:
    if answer.error:
        return {"file": answer.file, "error": answer.error}
    found = {
        name: {"logit": logit, "probability": chance, "threshold": threshold, "decision": decision}
        for _, name, logit, chance, threshold, decision in rows_of(predictor, answer)
    }
    flags = [{"code": flag.name, "sentence": flag.says} for flag in answer.flags]
    return {"file": answer.file, "flags": flags, "findings": found}


def sentence(answer: Answer) -> str:
    """Why a file has no answer."""
    return f"{Path(answer.file)}: {answer.error}"
