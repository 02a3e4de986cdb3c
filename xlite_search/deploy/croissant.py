"""Croissant 1.0 (MLCommons): a prepared data set's files and columns as JSON-LD, from the facts of its data card.

Paths are relative to the data set's folder, where `card NAME` writes the file. A licence is named nowhere, for the
label tables in circulation have none; the owner's notice is what is to be cited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xlite_search.data.packed import COLUMNS, INDEX, MANIFEST, PIXELS

VERSION = "http://mlcommons.org/croissant/1.0"
FORMATS = {
    PIXELS: ("application/octet-stream", "Prepared images, raw bytes, uint8 [image, channel, height, width]"),
    INDEX: ("text/csv", "A row for each image, in the order of the pixels"),
    COLUMNS: ("application/octet-stream", "The same index as columns, safetensors"),
    MANIFEST: ("application/json", "What it was made from and how, counts, and the sha256 of the other files"),
}
#: columns of the index
FIELDS = {
    "name": "Name of the image",
    "patient": "What a split never cuts: the patient, or the lesion",
    "view": "Projection, PA or AP; empty where it is not known",
    "sex": "M or F; empty where it is not known",
    "age": "In years, as text; empty where it is not known",
    "follow_up": "Number of the patient's examination as text, the first is 0; empty where it is not known",
    "height": "Of the raw image, in pixels",
    "width": "Of the raw image, in pixels",
    "findings": "Findings, separated by |; empty where there is none",
    "boxes": "Boxes around findings as 'finding x y width height', separated by |, in pixels of the raw image",
    "digest": "Hash of the prepared pixels",
}
NUMBERS = ("height", "width")
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON-LD of a data set, from what its card says."""
    preprocess = facts["preprocess"]
    size = f"{facts['images']} x {preprocess['channels']} x {preprocess['size']} x {preprocess['size']}"
    about: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": facts["name"],
        "description": (
            f"Chest radiographs prepared for training by xlite_search: {facts['images']} images of {facts['patients']} "
            f"patients, {len(facts['classes'])} findings ({', '.join(facts['classes'])}); pixels {size}, uint8."
        ),
        "version": "1.0.0",
        "identifier": facts["fingerprint"],
        "isLiveDataset": False,
        "distribution": [_file(each) for each in facts["files"]],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One record for each prepared image; record i is image i of the pixels.",
                "key": {"@id": "images/name"},
                "field": list(_fields()),
            }
        ],
    }
    if facts["notice"]:
        about["citeAs"] = facts["notice"]
    if facts["known_problems"]:
        about["rai:dataLimitations"] = facts["known_problems"]
    return about


def _file(each: Mapping[str, Any]) -> dict[str, Any]:
    kind, said = FORMATS[each["name"]]
    return {
        "@type": "cr:FileObject",
        "@id": each["name"],
        "name": each["name"],
        "description": said,
        "contentUrl": each["name"],
        "contentSize": f"{each['bytes']} B",
        "encodingFormat": kind,
        "sha256": each["sha256"],
    }


def _fields() -> Iterator[dict[str, Any]]:
    for name, said in FIELDS.items():
        yield {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "description": said,
            "dataType": "sc:Integer" if name in NUMBERS else "sc:Text",
            "source": {"fileObject": {"@id": INDEX}, "extract": {"column": name}},
        }
