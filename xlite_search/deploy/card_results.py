"""Text of a model card on what the model reaches: results, subgroups, calibration, maps, time and size."""

from __future__ import annotations

from collections.abc import Iterator

from xlite_search.deploy.card_markdown import (
    FIGURES,
    Facts,
    bullets,
    code,
    confidence,
    count,
    escaped,
    interval,
    mebibytes,
    milliseconds,
    missing,
    percent,
    power,
    signed,
    table,
    value,
)
from xlite_search.evaluation.calibration_notes import COMPARED
from xlite_search.evaluation.explained import part_of_findings
from xlite_search.evaluation.subgroups import SAID
from xlite_search.results.columns import ABSENT, number

#: below a table that has a calibration error
NO_INTERVAL = (
    "\n\nThe calibration error is of fifteen bins of equal width, and the ECE below of ten of equally many images. "
    "The calibration error has no interval: by luck alone it is above 0, more so the better a model is calibrated, "
    "and no bootstrap takes that away."
)
#: by the method's name
MAPS = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}


def results(facts: Facts) -> Iterator[str]:
    if not facts["evaluations"]:
        yield "There are none yet."
    yield from missing(facts, "findings")
    for each in facts["evaluations"]:
        yield f"### On {escaped(each['on'])}"
        yield f"{count(each['images'])} images of {count(each['patients'])} patients; intervals by patient."
        yield _means(each, facts)
        if each["findings"]:
            yield _findings(each, facts)
        if each["success"]:
            rows = [
                [escaped(row["criterion"]), escaped(row["found"]), escaped(row["verdict"])] for row in each["success"]
            ]
            yield "Criteria of success:"
            yield table(["Criterion", "found", "verdict"], rows, words=3)
            yield _timed(each)
        if each["moved"]:
            yield _moved(each)
        yield from _subgroups(each, facts)
        yield bullets(escaped(note) for note in each["notes"])


def _timed(each: Facts) -> str:
    """What the criterion's milliseconds are of; those under Time and size are of another program."""
    where = escaped(each["processor"]) if each.get("processor") else "the machine that judged it"
    return (
        f"Its time is of PyTorch: the network alone, one image, one thread of {where}. Time and size below has that of "
        f"the exported graph, by onnxruntime."
    )


def _means(each: Facts, facts: Facts) -> str:
    f1 = "F1 at its thresholds" if facts["answers"]["thresholds"] else "F1 at a probability of one half"
    words = {"auroc": "AUROC", "ap": "average precision", "f1": f1, "brier": "Brier score", "ece": "calibration error"}
    rows = [[words.get(name, name), value(found), interval(found)] for name, found in each["macro"].items()]
    return table(["Mean over findings", "", confidence(facts)], rows) + (NO_INTERVAL if "ece" in each["macro"] else "")


def _findings(each: Facts, facts: Facts) -> str:
    heads = ["Finding", "positives", "AUROC", confidence(facts), "AP", "sensitivity", confidence(facts), "specificity"]
    rows = []
    for row in each["findings"]:
        name = escaped(row["finding"])
        head = [f"({name})" if row["positives"] < facts["support"] else name, count(row["positives"])]
        rates = [
            value(row["sensitivity"]),
            interval(row["sensitivity"]),
            value(row["specificity"]),
            interval(row["specificity"]),
        ]
        rows.append([*head, value(row["auroc"]), interval(row["auroc"]), value(row["ap"]), *rates])
    note = f"By finding, the rarest first; in brackets with under {count(facts['support'])} positives."
    return f"{note} Rates are at its thresholds.\n\n{table([*heads, confidence(facts)], rows)}"


def _moved(each: Facts) -> str:
    rows = [
        [
            escaped(row["finding"]),
            percent(row["fitted"]),
            percent(row["here"]),
            *map(number, (row["mean"], row["corrected"])),
        ]
        for row in each["moved"]
    ]
    told = "Findings that are more or less frequent than where it was fitted; what is delivered is not corrected:"
    return f"{told}\n\n{table(['Finding', 'fitted on', 'here', 'mean probability', 'corrected'], rows)}"


def _subgroups(each: Facts, facts: Facts) -> Iterator[str]:
    if not each["subgroups"]:
        yield "Subgroups are not known: the label table has no sex, age, projection or examination."
        return
    heads = [
        "Subgroup",
        "images",
        "patients",
        "findings",
        "mean AUROC of these",
        confidence(facts),
        "sensitivity",
        "false positives",
        "underdiagnosis",
    ]
    rows = []
    for row in each["subgroups"]:
        area = [count(row["findings"]), value(row["auroc"]), interval(row["auroc"])]
        counts = [count(row["images"]), count(row["patients"]), *area]
        rates = [value(row[name]) for name in ("sensitivity", "false_positive_rate", "underdiagnosis")]
        rows.append(
            [f"{escaped(row['attribute'])} {escaped(row['name'])}", *counts, *rates, interval(row["underdiagnosis"])]
        )
    yield (
        "In subgroups; AUROC is the mean of so many findings, those that all subgroups of an attribute have enough of "
        f"({count(facts['support'])} images with and as many without):"
    )
    yield table([*heads, confidence(facts)], rows)
    yield "Underdiagnosis: the share of images with a finding for which none is decided."
    if each["gaps"]:
        rows = [
            [f"{escaped(gap['attribute'])}: {escaped(gap['one'])} less {escaped(gap['other'])}", *_gap(gap)]
            for gap in each["gaps"]
        ]
        yield "Gaps between subgroups:"
        yield table(["Gap", "AUROC", f"{confidence(facts)}, all at once", ""], rows)
    if within := each["within_projections"]:
        where = list(next(iter(within.values())))
        rows = [[escaped(name), *(number(areas[each_]) for each_ in where)] for name, areas in within.items()]
        yield "A model that tells projections apart gains in the pooled AUROC what it has not within them:"
        yield table(["AUROC within projections", *map(escaped, where)], rows)


def _gap(gap: Facts) -> list[str]:
    of = {"value": gap["gap"], "low": gap["low"], "high": gap["high"]}
    return [value(of, signed), interval(of, signed), escaped(SAID.get(gap["verdict"], gap["verdict"]))]


def calibration(facts: Facts) -> Iterator[str]:
    found = facts["calibration"]
    yield from missing(facts, "calibration")
    if not found:
        return
    if found["caveat"]:
        yield f"**This calibration is {escaped(found['caveat'])}.**"
    heads = ["Finding", "positives", "ECE before", "ECE", "Brier before", "Brier", "skill", confidence(facts), "slope"]
    rows = [_calibrated(row) for row in (*found["findings"], found["together"])]
    yield table([*heads, confidence(facts), "intercept"], rows)
    yield (
        f"By lines of other patients' images, {count(found['folds'])} folds. Not assessable: under "
        f"{count(facts['assessable_from'])} positives or negatives. ECE is above 0 by luck alone, and has no interval."
    )
    for name, findings in found["not_better"].items():
        if findings:
            yield f"**{COMPARED[name]} is no better than before** for {', '.join(map(escaped, findings))}."
    for name, said in (("reliability.svg", "Reliability by finding"), ("net_benefit.svg", "Net benefit by finding")):
        if name in facts["figures"]:
            yield f"![{said}]({FIGURES}/{name})"


def _calibrated(row: Facts) -> list[str]:
    head, after = [escaped(row["finding"]), count(row["positives"])], row["after"]
    if not after:
        return [*head, "not assessable", *[ABSENT] * 8]
    figures = [value(of and of[name]) for name in ("ece", "brier") for of in (row["before"], after)]
    more = [value(after["skill"]), interval(after["skill"]), value(after["slope"]), interval(after["slope"])]
    return [*head, *figures, *more, value(after["intercept"], signed)]


def localisation(facts: Facts) -> Iterator[str]:
    found = facts["localisation"]
    yield from missing(facts, "localisation")
    if not found:
        return
    data, rows = found["data"], found["localisation"]
    method = MAPS.get(found["method"], escaped(found["method"]))
    some = f", of {some}" if (some := part_of_findings(found)) else ""
    yield f"Maps by {method}, on {_part(data['part'])} of {code(data['name'])}{some}."
    if rows:
        heads = [
            "Finding",
            "cases",
            "pointing",
            "constant box",
            "gap",
            confidence(facts),
            "chance",
            "IoU",
            "constant box's",
        ]
        body = []
        for row in rows:
            ours, theirs, gap = (row[kind]["pointing"] for kind in ("maps", "constant", "gap"))
            cells = [value(ours), value(theirs), value(gap, signed), interval(gap, signed), number(row["chance"])]
            overlap = [value(row["maps"]["iou"]), value(row["constant"]["iou"])]
            body.append([escaped(row["finding"]), count(row["cases"]), *cells, *overlap])
        yield table(heads, body)
        yield "Constant box: the best guess that sees no image, fitted to these very boxes. Chance: a random point."
    yield bullets(escaped(note) for note in found["notes"])
    yield "Its maps are not copied here, for they show images; they lie in `artifacts/explain` of the model's folder."
    if found["others"]:
        each = [f"{MAPS.get(of['method'])} on {_part(of['part'])} of {code(of['data'])}" for of in found["others"]]
        yield f"There lie figures of others, too: {'; '.join(each)}."


def _part(name: str) -> str:
    return "all parts" if name == "all" else f"the {escaped(name)} part"


def cost(facts: Facts) -> Iterator[str]:
    cost = facts["cost"]
    rows = [f"{code(name)}: {mebibytes(size)}" for name, size in cost["files"].items()]
    if training := cost["training"]:
        energy = f", {number(training['gpu_wh'])} Wh of the GPU" if training["gpu_wh"] is not None else ""
        rows.append(f"Training: {count(training['epochs'])} epochs, {count(training['seconds'])} s{energy}")
    yield bullets(rows)
    if latency := cost.get("latency"):
        names = {
            "one_thread": "graph, onnxruntime, one thread",
            "all_cores": "graph, onnxruntime, all cores",
            "preparing": "decoding and preparing, OpenCV, one thread",
        }
        body = [
            [said, *(milliseconds(latency[name][each]) for each in ("p50_ms", "p95_ms", "p99_ms"))]
            for name, said in names.items()
            if name in latency
        ]
        yield table(["Milliseconds an image", "p50", "p95", "p99"], body)
        yield (
            f"Measured when it was exported, on {count(latency['cores'])} cores of {escaped(latency['cpu'])}. Cold "
            f"start of onnxruntime {milliseconds(latency['cold_start_ms'])} ms."
        )
    if parity := cost.get("parity"):
        yield (
            f"Graph and PyTorch model differ by {power(parity['logits'])} in logits and {power(parity['from_bytes'])} "
            f"in probabilities from file bytes on, over {count(parity['images'])} images."
        )
        if parity.get("graph_off"):
            yield (
                f"That is the rounding of float32: from logits in float64 the graph's differ by "
                f"{power(parity['graph_off'])}, PyTorch's own by {power(parity['model_off'])}."
            )
    if eight := cost.get("int8"):
        yield f"The graph in eight bits loses {number(eight['loss'])} of mean AUROC (at most {number(eight['upper'])})."
        if seen := eight.get("seen"):
            yield f"It was judged on images of {count(seen)} patients whom the model was trained on."
    yield from missing(facts, "latency")
