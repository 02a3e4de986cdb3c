"""Text of a model card, from its facts alone: Markdown, in the order of Mitchell et al. and of Garbin and Marques."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xlite_search.deploy.card_limits import PHANTOM
from xlite_search.deploy.card_markdown import (
    bullets,
    chance,
    code,
    commands,
    confidence,
    count,
    escaped,
    interval,
    millions,
    missing,
    page,
    percent,
    sentence,
    short,
    table,
    value,
)
from xlite_search.deploy.card_results import calibration, cost, localisation, results
from xlite_search.results.columns import ABSENT, number

Facts = Mapping[str, Any]
NOT_FOR = (
    "It is **not a medical device**: nobody has cleared it for use on patients, and no decision about a person may "
    "rest on it, neither diagnosis nor triage nor screening.",
    "It says nothing of findings that are not in its list: low probabilities are no clean bill of health.",
    "It answers for every image, of a hand or of a cat too: the model does not notice that an image is not of its "
    "kind. `serve` and `predict --watch` flag what is unlike its training images; no flag does not mean that it fits.",
    "Where findings are more or less frequent than where it was calibrated its probabilities are off, and its "
    "thresholds do not do what the tables below say.",
)
#: by the calibration's method
LINES = {"platt": "Platt's line for each finding", "temperature": "one temperature"}
ETHICS = (
    "A model that does worse in a group of patients does harm there that its overall figures hide: read the table of "
    "subgroups, underdiagnosis in it above all. Images may hold what tells sex, age or origin, and a model may use it."
)


def text(facts: Facts) -> str:
    """The card without its head."""
    model = facts["model"]
    return page(
        [
            (f"# {escaped(model['name'])}", _summary(facts)),
            ("## Model details", _details(facts)),
            ("## Intended use", _use(facts)),
            ("## How it answers", _answers(facts)),
            ("## Training data", _data(facts)),
            ("## Search budget", _search(facts)),
            ("## Looks at the test set", _looks(facts)),
            ("## Results", results(facts)),
            ("## Calibration", calibration(facts)),
            ("## Where it looks", localisation(facts)),
            ("## Time and size", cost(facts)),
            ("## Limits", _limits(facts)),
            ("## How to reproduce", _reproduce(facts)),
        ]
    )


def _summary(facts: Facts) -> Iterator[str]:
    model = facts["model"]
    yield (
        f"Gives a probability for each of {count(model['finding_count'])} findings in a chest radiograph. For "
        f"research; **not a medical device**."
    )
    if facts["data"]["source"] == PHANTOM:
        yield "**It was trained on drawings that a program made, and has seen no radiograph.**"
    rows = [["Judged on", *_judged(facts)]]
    for each in facts["evaluations"]:
        area = each["macro"]["auroc"]
        cells = [count(each["images"]), count(each["patients"]), number(area["value"]), interval(area)]
        rows.append([escaped(each["on"]), *cells])
    if facts["evaluations"]:
        yield table(rows[0], rows[1:])
    yield from missing(facts, "test", "old")
    yield (
        f"Every number here is one of `model_card.json` beside it; intervals are {confidence(facts)}, by patient. Read "
        f"its limits, at the end, before you use it."
    )


def _judged(facts: Facts) -> list[str]:
    return ["images", "patients", "mean AUROC", confidence(facts)]


def _details(facts: Facts) -> Iterator[str]:
    model = facts["model"]
    size = f"{millions(model['parameters'])} parameters" if model["parameters"] else "size not told"
    rows = [f"Hybrid: {code(model['hybrid'])}, {size}"]
    if model["members"]:
        rows.append(f"An ensemble, the mean of the logits of {', '.join(map(code, model['members']))}")
    rows.append(f"Findings: {', '.join(map(escaped, model['findings']))}")
    if model["best_epoch"]:
        rows.append(
            f"Weights of epoch {count(model['best_epoch'])}, seed {', '.join(str(each) for each in model['seeds'])}"
        )
    if teacher := model["teacher"]:
        told = f", tau {short(teacher['tau'])}, alpha {short(teacher['alpha'])}" if teacher["tau"] is not None else ""
        rows.append(f"Distilled from teacher {code(teacher['teacher'])}{told}")
    if model["started_from"]:
        rows.append(f"Started from weights of sha256 {code(model['started_from']['sha256'])}")
    if training := model["training"]:
        loss, sampler = (code(_name(training.get(name))) for name in ("loss", "sampler"))
        rows.append(f"Loss {loss}, sampler {sampler}")
    rows.append(f"Weights' sha256: {code(model['sha256'])}")
    rows.append("Licence of the weights: not stated; who hands the model on has to say it")
    yield bullets(rows)
    yield f"Headings as in {escaped(facts['headings'])}."


def _name(choice: Any) -> str:
    return str(choice.get("name", "")) if isinstance(choice, Mapping) else str(choice or "")


def _use(facts: Facts) -> Iterator[str]:
    yield (
        "Meant for research on light classifiers of chest radiographs: to compare methods with, to study calibration "
        "and subgroups, to start other models from. Its users are people who can read the tables below."
    )
    yield "What it is not:"
    yield bullets(NOT_FOR)
    yield ETHICS


def _answers(facts: Facts) -> Iterator[str]:
    answers, calibration = facts["answers"], facts["calibration"]
    yield _prepared(answers["preprocess"])
    if calibration:
        on = calibration["on"]
        yield (
            f"Probabilities are calibrated by {LINES[calibration['method']]}, on "
            f"{count(on['images'])} {calibration['kind']} images of {count(on['patients'])} patients of "
            f"{code(on['data'])}. Hash {code(calibration['hash'])}."
        )
    yield from missing(facts, "calibration", "thresholds")
    rows = answers["thresholds"]
    if not rows:
        return
    yield (
        f"Thresholds by rule {code(answers['rule'])}{_promise(facts)}; a finding that has none by it is decided by the "
        f"best F1, which promises nothing. Figures are of the validation images that they were chosen on."
    )
    heads = ["Finding", "positive patients", "threshold", "by", "sensitivity", confidence(facts), "specificity"]
    yield table([*heads, confidence(facts), "precision"], [_threshold(row) for row in rows])
    yield from _refused(answers)


def _refused(answers: Facts) -> Iterator[str]:
    """Findings without a threshold that keeps a sensitivity: those with too few patients in one sentence."""
    rows, needed = [row for row in answers["thresholds"] if row["refused"]], answers["patients_needed"]
    few = [row for row in rows if row["positives"] > 0 and row["positive_patients"] < needed]
    if few:
        names = ", ".join(f"{escaped(row['finding'])} ({count(row['positive_patients'])})" for row in few)
        yield (
            f"Refused, for a promise of a sensitivity of {short(answers['at_least'])} takes {count(needed)} positive "
            f"patients: {names}."
        )
    yield bullets(sentence(row["refused"]) for row in rows if row not in few)


def _promise(facts: Facts) -> str:
    answers = facts["answers"]
    if answers["rule"] != "sensitivity":
        return ""
    return f", the highest that keep a sensitivity of {short(answers['at_least'])} with {confidence(facts)} confidence"


def _threshold(row: Facts) -> list[str]:
    chosen, head = row["threshold"], [escaped(row["finding"]), count(row["positive_patients"])]
    if not chosen:
        return [*head, "none", *[ABSENT] * 6]
    rates = [value(chosen["sensitivity"]), interval(chosen["sensitivity"]), value(chosen["specificity"])]
    more = [interval(chosen["specificity"]), value(chosen["precision"])]
    return [*head, chance(chosen["probability"]), escaped(row["by"]), *rates, *more]


def _prepared(spec: Facts) -> str:
    if not spec:
        return "How its images have to be prepared is not known: it is a model from elsewhere."
    clahe, size = spec.get("clahe"), spec.get("size")
    rows = [f"{escaped(spec.get('pixels', 'uint8'))}, {size} x {size} pixels, {_shape(spec)}"]
    if clahe:
        tiles = f"{clahe['tiles']} x {clahe['tiles']} tiles"
        rows.append(f"CLAHE on the raw image: clip limit {short(clahe['clip_limit'])}, {tiles}")
    if "stretch" in spec:
        rows.append(
            f"Of more than eight bits {short(spec['stretch'])} percent of the pixels at either end do not count"
        )
    return f"The images that it takes; `predict` prepares them so, and needs no PyTorch:\n\n{bullets(rows)}"


def _shape(spec: Facts) -> str:
    return "cropped to a square" if spec.get("resize") == "crop" else "padded with black to a square"


def _data(facts: Facts) -> Iterator[str]:
    data, elsewhere = facts["data"], facts["model"]["from_elsewhere"]
    if elsewhere:
        yield "On which data it was trained is not known: it is a model from elsewhere."
    if data["name"]:
        yield from _parts(data, elsewhere=elsewhere)
    yield from missing(facts, "data")
    if data["notice"]:
        yield f"Notice of the data's owner: {escaped(data['notice'])}"
    else:
        yield "A notice that the data's owner asks for is not known here."


def _parts(data: Facts, *, elsewhere: bool) -> Iterator[str]:
    """Of the data set that it was trained on, or, of a model from elsewhere, is judged on."""
    name = f"{'Judged on data' if elsewhere else 'Data'} set {code(data['name'])}"
    kind = data["split"]["name"] if isinstance(data["split"], Mapping) else ""
    rows = [
        f"{name}, source {code(data['source'])}, fingerprint {code(data['fingerprint'])}",
        f"Split: {code(kind)}, no patient in two parts, fingerprint {code(data['split_fingerprint'])}",
    ]
    if not elsewhere:
        folds = f", each of {count(data['folds'])} members without the fold that judges it" if data["folds"] else ""
        rows.append(f"Trained on: {code(data['fit'])}{folds}")
    if data["patients_trained_on"] is not None:
        rows.append(f"Patients trained on: {count(data['patients_trained_on'])}")
    yield bullets(rows)
    if parts := data.get("parts"):
        heads = ["Part", *map(escaped, parts)]
        body = [[what, *(count(part[what]) for part in parts.values())] for what in ("images", "patients")]
        names = list(next(iter(parts.values()))["prevalence"])
        body += [[escaped(name), *(percent(part["prevalence"][name]) for part in parts.values())] for name in names]
        yield table(heads, body)
    for attribute, members in (data.get("fitted_attributes") or {}).items():
        told = ", ".join(f"{escaped(name)}: {count(many)}" for name, many in members.items())
        yield f"Images trained on by {escaped(attribute)}: {told}."


def _search(facts: Facts) -> Iterator[str]:
    found = facts["search"]
    if found:
        score = f", {escaped(found['metric'])} {number(found['score'])} at epoch {count(found['best_epoch'])}"
        trial = f"Study {code(found['study'])}, trial {code(found['trial'])}: {escaped(found['label'])}"
        yield f"{trial}{score}, on validation."
    if found and (chosen := found["chosen"]):
        told = f"Chosen among {count(chosen['of'])} by {escaped(chosen['by'])}"
        if chosen["unfinished"]:
            told += f"; {count(chosen['unfinished'])} more were not over"
        if chosen["mean"] is not None:
            ends = interval({"value": chosen["mean"], "low": chosen["low"], "high": chosen["high"]})
            told += f". Score {number(chosen['mean'])} ({confidence(facts)}: {ends}), seeds: {count(chosen['seeds'])}"
        yield f"{told}."
        if chosen["corrected"] is not None:
            yield f"What that score is worth, had it not been chosen as the best: **{number(chosen['corrected'])}**."
        else:
            yield "What the score is worth, had it not been chosen, is not known of this study."
    yield from missing(facts, "search")


def _looks(facts: Facts) -> Iterator[str]:
    for each in facts["evaluations"]:
        if each["looked"]:
            yield _look(each)
    yield from missing(facts, "test", "old")
    if facts["looks"]:
        rows = [
            [count(each["number"]), code(each["model"]), "yes" if each["this"] else "no", escaped(each["date"])]
            for each in facts["looks"]
        ]
        yield "All looks at the test part of its data, by the ledger here:"
        yield table(["Look", "model", "this one, as it is", "date"], rows, words=4)


def _look(each: Facts) -> str:
    look, looked = each["look"], each["looked"]
    so_far = f", of {count(looked['so_far'])} by now" if (looked["so_far"] or 1) > 1 else ""
    reason = f" Looked at again because: {escaped(look['reason'])}." if look["reason"] else ""
    return f"On {escaped(each['on'])}: **{escaped(looked['words'])}**{so_far}, {escaped(look['date'])}.{reason}"


def _limits(facts: Facts) -> Iterator[str]:
    yield bullets(sentence(each) for each in facts["limits"])


def _reproduce(facts: Facts) -> Iterator[str]:
    made = facts["reproduce"]
    yield commands(made["commands"])
    if not made["settings_known"]:
        yield (
            "What `train` was given by `--set` is not known here and has to be given again; `model.json` of the "
            "model's folder has every setting."
        )
    known = made["libraries"] | made["exported_with"]
    libraries = [f"{escaped(name)} {escaped(version)}" for name, version in known.items()]
    code_of = f"Commit {code(made['commit'])}, trained by {code(made['trained_by'])}." if made["commit"] else ""
    told = f" Libraries: {', '.join(libraries)}." if libraries else ""
    yield f"{code_of} xlite_search {escaped(made['version'])}.{told}".strip()
