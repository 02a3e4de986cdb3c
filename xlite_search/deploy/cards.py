"""Cards: what a delivered model, or a prepared data set, is, for a person (Markdown) and a program (JSON).

    model_card.md, model_card.json, figures/*.svg     of a model; its head is Hugging Face's
    data_card.md, data_card.json, croissant.json      of a data set; the last is Croissant 1.0 (`croissant.py`)

The text is made of the JSON alone, so that every number in it is one of that. Nothing is fetched when it is read: the
figures lie beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xlite_search.deploy import card_facts, card_text, data_facts, data_text
from xlite_search.deploy.card_markdown import FIGURES
from xlite_search.deploy.croissant import croissant
from xlite_search.deploy.delivered import Delivered
from xlite_search.deploy.folder import ExportManifest
from xlite_search.results.columns import number

MODEL_CARD, MODEL_JSON = "model_card.md", "model_card.json"
DATA_CARD, DATA_JSON, CROISSANT = "data_card.md", "data_card.json", "croissant.json"
#: Hugging Face's names of the figures in a card's head
METRICS = {"auroc": "roc_auc", "ap": "average_precision", "f1": "f1", "brier": "brier_score"}


def model_card(
    folder: Path, exported: ExportManifest | None = None, home: Path | None = None
) -> tuple[str, dict[str, Any]]:
    """The card of a model folder, and the JSON that its numbers are of.

    exported, home  the manifest of the export that it is for, and the folder that is being written

    Raises BadInput or Damaged if the model, or what belongs to it, is not what was written.
    """
    of = Delivered.read(folder, exported, home)
    facts = card_facts.facts(of) | {"figures": list(_figures(of))}
    return model_markdown(facts), facts


def model_markdown(facts: Mapping[str, Any]) -> str:
    """A model card from its JSON."""
    from huggingface_hub import ModelCard

    return str(ModelCard(f"---\n{_head(facts)}\n---\n\n{card_text.text(facts)}"))


def model_files(folder: Path, exported: ExportManifest | None = None, home: Path | None = None) -> dict[str, bytes]:
    """All files of a model's card by their path beside it. Raises as `model_card`."""
    text, facts = model_card(folder, exported, home)
    figures = _figures(Delivered.read(folder))
    return {
        MODEL_CARD: text.encode(),
        MODEL_JSON: _json(facts),
        **{f"{FIGURES}/{name}": path.read_bytes() for name, path in figures.items()},
    }


def writer(folder: Path) -> Callable[[Path, ExportManifest], Mapping[str, bytes]]:
    """What has `export` write the card of the model that it exports."""
    return lambda home, about: model_files(folder, about, home)


def data_card(name: str) -> tuple[str, dict[str, Any]]:
    """The card of a prepared data set, and the JSON that its numbers are of.

    Raises:
        BadInput: it is not prepared, or cannot be split.
        Damaged: it is not what was prepared.
    """
    facts = data_facts.facts(name)
    return data_text.text(facts), facts


def data_files(name: str) -> dict[str, bytes]:
    """All files of a data set's card by their name. Raises as `data_card`."""
    text, facts = data_card(name)
    return {DATA_CARD: text.encode(), DATA_JSON: _json(facts), CROISSANT: _json(croissant(facts))}


def _figures(of: Delivered) -> dict[str, Path]:
    """Figures of the calibration, if there is one and it drew them."""
    found = {name: of.folder / path for name, path in card_facts.FIGURES.items()} if of.calibration else {}
    return {name: path for name, path in found.items() if path.is_file()}


def _head(facts: Mapping[str, Any]) -> str:
    """Hugging Face's YAML; figures of validation are left out of it."""
    from huggingface_hub import EvalResult, ModelCardData

    model, judged = facts["model"], [each for each in facts["evaluations"] if each["on"] != "val"]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=facts["data"]["name"] or "unknown",
            dataset_name=facts["data"]["name"] or "unknown",
            dataset_split=each["on"],
            metric_type=METRICS[name],
            metric_name=f"mean {METRICS[name]} over findings",
            metric_value=float(number(found["value"])),
        )
        for each in judged
        for name, found in each["macro"].items()
        if name in METRICS and found["value"] is not None
    ]
    about = ModelCardData(
        library_name=model["library"],
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "medical-imaging", "multi-label-classification", "research-only"],
        metrics=list(METRICS.values()) if results else None,
        model_name=model["name"] if results else None,
        eval_results=results or None,
    )
    return str(about.to_yaml()).strip()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
