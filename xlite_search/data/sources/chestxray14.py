"""NIH ChestX-ray14: its notice and citation, and how its images are recognised."""

from __future__ import annotations

from xlite_search.data.sources import LabelTable
from xlite_search.data.sources.chest import CHEST_FINDINGS
from xlite_search.data.sources.names import nih_patient

NAME = "chestxray14"
NOTICE = (
    "ChestX-ray14 was provided by the NIH Clinical Center (https://nihcc.app.box.com/v/ChestXray-NIHCC). Acknowledge "
    "it and cite: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers. ChestX-ray8: Hospital-scale Chest X-ray "
    "Database and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE "
    "CVPR 2017, pp. 3462-3471."
)


def is_nih(table: LabelTable) -> bool:
    """Whether a table is NIH's, or a part of it: findings of NIH's, and patients as its images' names have them."""
    of_nih = zip(table.names, table.groups, strict=True)
    return {*table.classes} <= {*CHEST_FINDINGS} and all(patient == nih_patient(name) for name, patient in of_nih)
