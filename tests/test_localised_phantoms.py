"""A small network that learned drawn findings points at them, more often than a guess that sees no image."""

from __future__ import annotations

import json

import pytest
from test_cli import call

from trainables.baseline import baseline
from xlite_search import places
from xlite_search.config import RunConfig
from xlite_search.data.dataset import DataSpec, open_data
from xlite_search.data.prepare import prepare
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.phantom import Phantom
from xlite_search.model_folder import ModelManifest, input_of, write_model
from xlite_search.training.optim import AdamW, Cosine

#: benchmarks/maps.py trains longer, on larger images: there pneumonia is found too
DRAWN = {"Atelectasis": 0.3, "Consolidation": 0.3, "Pneumonia": 0.3}


@pytest.mark.slow
def test_maps_point_at_what_was_drawn_and_a_constant_guess_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    prevalence = {finding: DRAWN.get(finding, 0.0) for finding in CHEST_FINDINGS}
    prepare("three", Phantom(images=800, size=128, prevalence=prevalence), 128)
    config = RunConfig(
        model="test_resnet_none",
        data=DataSpec(name="three"),
        epochs=8,
        batch_size=16,
        optimizer=AdamW(lr=3e-3),
        schedule=Cosine(warmup=1),
        early_stopping=None,
    )
    weights = [(each.weights_bytes(), each.metrics) for each in baseline(config) if each.improved][-1]
    data = open_data(config.data)
    about = ModelManifest(config=config.model_dump(mode="json"), classes=data.classes, input=input_of(data))
    write_model(places.model_folder("m"), weights[0], about)
    code, out, err = call(capsys, "explain", "m", "--cpu", "--json", "--images", "12")
    assert code == 0, err
    body = json.loads(out)
    rows = {row["finding"]: row for row in body["localisation"]}
    kinds = ("maps", "constant")
    pointing = {name: [row[kind]["pointing"]["value"] for kind in kinds] for name, row in rows.items()}
    assert pointing["Consolidation"][0] >= 2 * pointing["Consolidation"][1], pointing
    # above the left or the right dome, and in height less than a cell: a guess has half of it, and a map not twice that
    assert pointing["Atelectasis"][1] > 0.45, pointing
    over_all = rows["mean of findings"]
    assert over_all["gap"]["pointing"]["value"] > 0, pointing
    assert body["sanity"]["head"]["rank_correlation"] < 0.7
