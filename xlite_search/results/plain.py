"""A comparison as plain values, for `--json` and for the study's `comparison.json`."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xlite_search.records import RunRecord
from xlite_search.study_record import homes

if TYPE_CHECKING:
    from xlite_search.results.compare import Comparison


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All that `compare` tells, without NaN."""
    everyone = [*comparison.ranked, *comparison.others]
    on_front = {run.folder for run, kept in zip(comparison.ranked, comparison.on_front(), strict=True) if kept}
    studies = dict(zip((run.folder for run in everyone), homes(everyone), strict=True))

    own = comparison.claims.own if comparison.claims else {}

    def entry(run: RunRecord, rank: int | None) -> dict[str, Any]:
        at_best = run.epochs[run.best.epoch - 1] if run.best else {}
        return {
            "rank": rank,
            "study": studies[run.folder],
            "trial": run.key,
            "label": run.label,
            "settings": run.settings,
            "status": run.status,
            "cause": run.cause,
            "epochs": len(run.epochs),
            "best_epoch": run.best.epoch if run.best else None,
            "score": at_best.get(comparison.metric),
            **({"interval": own[run.key].as_json()} if run.key in own else {}),
            "final": run.epochs[-1].get(comparison.metric) if run.epochs else None,
            "seconds": run.seconds,
            **({"gpu_wh": energy_wh(run)} if comparison.energy_wh else {}),
            **({"micro_batch": run.micro_batch} if run.micro_batch else {}),
            "facts": run.facts,
            **({"front": run.folder in on_front} if comparison.minimize else {}),
            "metrics": at_best,
        }

    ranked = [entry(run, rank) for rank, run in enumerate(comparison.ranked, start=1)]
    return {
        "studies": list(comparison.names),
        "metric": comparison.metric,
        "minimize": list(comparison.minimize),
        "chance": {name: value for name, value in comparison.chance().items() if math.isfinite(value)},
        **({"teaching": asdict(comparison.teaching)} if comparison.teaching else {}),
        **({"claims": comparison.claims.as_json()} if comparison.claims else {"unclaimed": comparison.unclaimed}),
        **({"confounded": list(comparison.confounded)} if comparison.confounded else {}),
        **({"distillation": comparison.distillation.as_json()} if comparison.distillation else {}),
        **({"facts": list(comparison.facts)} if comparison.facts else {}),
        **({"left_out": list(comparison.left_out)} if comparison.left_out else {}),
        **({"effects": effects.as_json()} if (effects := comparison.effects()) else {}),
        **({"importances": shares.as_json()} if (shares := comparison.importances()) else {}),
        **({"reached": found.as_json()} if (found := comparison.reached()) else {}),
        "validation": {"images": comparison.images, "positives": comparison.support},
        **({"gpu_wh": comparison.energy_wh, "epochs_unread": comparison.unread} if comparison.energy_wh else {}),
        "trials": ranked + [entry(run, None) for run in comparison.others],
    }


def energy_wh(run: RunRecord) -> float:
    """What the GPU drew for a run, in Wh; 0 where nobody knows."""
    return float(sum(epoch.get("energy/gpu_wh", 0.0) for epoch in run.epochs))
