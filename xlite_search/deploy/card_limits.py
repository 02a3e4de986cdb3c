"""Limits of a model, a sentence each, written from the facts of its card: what is known to be weak, and what was not
looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xlite_search.evaluation.explained import part_of_findings

#: what a source of images calls itself
NIH, PHANTOM = "chestxray14", "phantom"
#: on NIH's labels (Wang et al. 2017; Oakden-Rayner 2020)
LABEL_NOISE = (
    "The labels of ChestX-ray14 were taken from radiologists' reports by a program, and part of them is known to be "
    "wrong: what agrees with them is not thereby right."
)
DRAWN = "Its images are drawn by code: what is said here holds of drawings, and of no radiograph of a person."
OVERLAP = (
    "The images of the RSNA pneumonia challenge are images of ChestX-ray14: to judge a model of the one on the other "
    "is no external validation."
)

ATTRIBUTES = ("sex", "age", "projection", "examination")

#: images of ChestX-ray14
NIH_IMAGES = 112_120

Facts = Mapping[str, Any]


def limits(facts: Facts) -> Iterator[str]:
    """In the order of their weight."""
    yield from _source(facts)
    yield from _judging(facts)
    yield from _training(facts)
    yield from _few(facts)
    yield from _moved(facts)
    yield from _gaps(facts)
    yield from _maps(facts)


def _source(facts: Facts) -> Iterator[str]:
    data = facts["data"]
    if data["source"] == PHANTOM:
        yield DRAWN
    if data["source"] == NIH:
        yield LABEL_NOISE
        yield OVERLAP
        yield from selection(data.get("images", NIH_IMAGES))
    if data.get("incomplete"):
        yield sentence(data["incomplete"])
    if data["patients_trained_on"] is None:
        yield "Whom it was trained on is not known: it may have seen the patients that it was judged on."


def selection(images: int) -> Iterator[str]:
    """Of so many images of ChestX-ray14."""
    if images < NIH_IMAGES:
        yield (
            f"The data set has {images:,} of the {NIH_IMAGES:,} images of ChestX-ray14: findings are as frequent as "
            f"whoever chose them made them, and what is said here does not hold of the whole."
        )


def _judging(facts: Facts) -> Iterator[str]:
    on = [each["on"] for each in facts["evaluations"]]
    if "test" not in on:
        yield "It was not judged on a test part: figures of validation are too good, for that chose its epoch."
    if not set(on) - {"test", "val"}:
        yield "It was judged on no images from elsewhere: what it reaches in another hospital is not known."
    looked = [each["looked"] for each in facts["evaluations"] if each["on"] == "test" and each["looked"]]
    if looked and (looked[0]["so_far"] or 1) > 1:
        many = looked[0]["so_far"]
        yield f"{many} models were judged on its test part by now: the best of them looks better than it is."


def _training(facts: Facts) -> Iterator[str]:
    data, model, calibration = facts["data"], facts["model"], facts["calibration"]
    if data["fit"] == "train+val" and not data["folds"]:
        yield "It was trained on the validation part too: no image was left to choose its epoch by, or to calibrate on."
    if calibration and calibration["caveat"]:
        yield f"Its calibration is {calibration['caveat']}."
    elif calibration and data["name"] and calibration["on"]["data"] != data["name"]:
        yield f"Its calibration was fitted on another data set, {calibration['on']['data']}."
    if data["fraction"] is not None and data["fraction"] < 1:
        yield f"It was trained on a part of the training images, data.fraction = {data['fraction']:g}."
    if model["from_elsewhere"]:
        yield "Its weights are from elsewhere: how they were trained is not known here."
    elif len(model["seeds"]) == 1:
        yield (
            f"It is one training, of seed {model['seeds'][0]}: intervals are of other patients and these weights; "
            f"what the same recipe gives with another seed they do not say."
        )
    if facts["search"] and not facts["search"]["chosen"]:
        yield "Of how many trials it was chosen is not known: its score on validation is too good by an unknown amount."


def _few(facts: Facts) -> Iterator[str]:
    for each in facts["evaluations"]:
        rare = [
            f"{row['finding']} ({row['positives']})" for row in each["findings"] if row["positives"] < facts["support"]
        ]
        if rare:
            few = f"under {facts['support']} positives; their figures there are hardly more than luck"
            yield f"On {each['on']} these findings have {few}: {', '.join(rare)}."
    if facts["calibration"] and facts["calibration"]["not_better"]["brier"]:
        names = ", ".join(facts["calibration"]["not_better"]["brier"])
        yield f"Calibration made the Brier score no better, by other patients' images, of {names}."
    if facts["calibration"] and (few := facts["calibration"]["not_assessable"]):
        yield (
            f"Whether its probabilities are calibrated is not assessable, under {facts['assessable_from']} positives "
            f"or negatives, for {', '.join(few)}."
        )
    answers = facts["answers"]
    others = [row["finding"] for row in answers["thresholds"] if row["by"] != answers["rule"]]
    if others:
        yield f"No threshold by rule {answers['rule']}, and so no promise of it, for {', '.join(others)}."


def _moved(facts: Facts) -> Iterator[str]:
    for each in facts["evaluations"]:
        names = [row["finding"] for row in each["moved"]]
        if names:
            yield (
                f"Prevalence on {each['on']} is another than where it was calibrated, of {', '.join(names)}: their "
                f"probabilities are off by that, and nothing corrects them when it is used."
            )
        if each["unjudged"]:
            yield f"On {each['on']} nothing is known of {', '.join(each['unjudged'])}."


def _gaps(facts: Facts) -> Iterator[str]:
    for each in facts["evaluations"][:1]:
        if lacking := [name for name in ATTRIBUTES if name not in {of["attribute"] for of in each["subgroups"]}]:
            yield f"On {each['on']} subgroups by {', '.join(lacking)} were not compared: not known, or all alike."
    for each in facts["evaluations"]:
        for gap in each["gaps"]:
            if gap["verdict"] in ("better", "worse"):
                more, less = (gap["one"], gap["other"])[:: 1 if gap["gap"] > 0 else -1]
                yield f"On {each['on']} it tells findings apart better in {gap['attribute']} {more} than {less}."


def _maps(facts: Facts) -> Iterator[str]:
    found = facts["localisation"]
    if not found:
        return
    if not found["localisation"]:
        yield "Its maps were compared with no boxes: do not show them as the place of a finding."
        return
    if some := part_of_findings(found):
        yield f"Its maps were compared with boxes of {some} alone."
    gap = found["localisation"][-1]["gap"]["pointing"]
    if gap["low"] is None or gap["low"] <= 0:
        less = gap["high"] is not None and gap["high"] < 0
        told = "know less of the place than" if less else "are not shown to know more of the place than"
        yield f"Its maps {told} a box that sees no image: do not show them as the place of a finding."


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
