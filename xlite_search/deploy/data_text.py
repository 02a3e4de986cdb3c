"""Text of a data card, from its facts alone."""

from __future__ import annotations

from collections.abc import Iterator

from xlite_search.deploy.card_markdown import (
    Facts,
    bullets,
    code,
    commands,
    count,
    escaped,
    page,
    percent,
    sentence,
    short,
    table,
)


def text(facts: Facts) -> str:
    return page(
        [
            (f"# {escaped(facts['name'])}", _summary(facts)),
            ("## Findings", _findings(facts)),
            ("## Patients and images", _people(facts)),
            ("## Split", _split(facts)),
            ("## Preprocessing", _preprocess(facts)),
            ("## Source, licence and notice", _source(facts)),
            ("## Known problems", _problems(facts)),
            ("## Files", _files(facts)),
        ]
    )


def _summary(facts: Facts) -> Iterator[str]:
    yield (
        f"{count(facts['images'])} images of {count(facts['patients'])} patients, prepared for training; fingerprint "
        f"{code(facts['fingerprint'])}. At most {count(facts['most_images_of_a_patient'])} images are of one patient."
    )
    yield (
        "Every number here is one of `data_card.json` beside it; `croissant.json` describes the files for programs. "
        f"Headings after {escaped(facts['headings'])}."
    )


def _findings(facts: Facts) -> Iterator[str]:
    rows = [
        [escaped(row["finding"]), count(row["images"]), count(row["patients"]), percent(row["prevalence"])]
        for row in facts["findings"]
    ]
    yield table(["Finding", "images", "patients", "of the images"], rows)
    yield f"{count(facts['boxes'])} boxes around findings." if facts["boxes"] else "No boxes around findings."


def _people(facts: Facts) -> Iterator[str]:
    if not facts["attributes"]:
        yield "Sex, age, projection and number of the examination are not known."
    else:
        every = [(name, key, many) for name, members in facts["attributes"].items() for key, many in members.items()]
        rows = [[escaped(name), escaped(key), count(many)] for name, key, many in every]
        yield table(["Attribute", "value", "images"], rows, words=2)
    if ages := facts["ages"]:
        told = [f"{name.replace('_', ' ')} {short(age)}" for name, age in ages.items()]
        yield f"Age in years: {', '.join(told)}."


def _split(facts: Facts) -> Iterator[str]:
    split = facts["split"]
    yield (
        f"The usual split of this data set, {code(split['spec']['name'])}, fingerprint {code(split['fingerprint'])}: "
        f"no patient is in two parts. A study may take another."
    )
    parts = {"whole": split["whole"], **split["parts"]}
    body = [[what, *(count(part[what]) for part in parts.values())] for what in ("images", "patients")]
    for name in split["whole"]["prevalence"]:
        body.append([escaped(name), *(percent(part["prevalence"][name]) for part in parts.values())])
    yield table(["Part", *map(escaped, parts)], body)


def _preprocess(facts: Facts) -> Iterator[str]:
    spec = facts["preprocess"]
    clahe, shape = spec["clahe"], "cropped to a square" if spec["resize"] == "crop" else "padded with black to a square"
    rows = [f"Size: {spec['size']} x {spec['size']} pixels, channels: {spec['channels']}, {shape}"]
    if clahe:
        rows.append(
            f"CLAHE before resizing: clip limit {short(clahe['clip_limit'])}, {clahe['tiles']} x {clahe['tiles']} tiles"
        )
    else:
        rows.append("No CLAHE")
    rows.append(f"Images of more than eight bits: {short(spec['stretch'])} percent at either end do not count")
    if spec["opencv"]:
        rows.append(f"By OpenCV {escaped(spec['opencv'])}")
    rows.append(f"Raw sizes: {', '.join(f'{escaped(size)}: {count(of)}' for size, of in facts['raw_sizes'].items())}")
    yield bullets(rows)


def _source(facts: Facts) -> Iterator[str]:
    yield f"Source: {code(facts['source'].get('source', ''))}."
    if facts["notice"]:
        yield escaped(facts["notice"])
    else:
        yield "No licence and no notice is known here: ask the owner of the images before you hand them on."


def _problems(facts: Facts) -> Iterator[str]:
    rows = [sentence(each) for each in facts["known_problems"]]
    lost = facts["expected"] - facts["images"]
    if facts["set_aside"]:
        rows += [f"Set aside, {escaped(reason)}: {count(of)} images" for reason, of in facts["set_aside"].items()]
    elif not lost:
        rows.append("No image of the label table is missing.")
    if not facts["duplicates"]["groups"]:
        rows.append("No two images have the same pixels.")
    else:
        across = count(facts["duplicates"]["across_splits"])
        rows.append(
            f"Groups of images with the same pixels: {count(facts['duplicates']['groups'])}, across splits: {across}"
        )
    yield bullets(rows)


def _files(facts: Facts) -> Iterator[str]:
    rows = [[code(each["name"]), count(each["bytes"]), code(each["sha256"])] for each in facts["files"]]
    yield table(["File", "bytes", "sha256"], rows)
    yield "How it is split, drawn and checked:"
    yield commands([f"audit {facts['name']}"])
