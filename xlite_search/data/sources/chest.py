"""The findings of chest radiographs, as NIH ChestX-ray14 has them, and the word for none of them."""

from __future__ import annotations

#: The 14 findings of NIH ChestX-ray14, in the order of the original paper's label table.
CHEST_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

NO_FINDING = "No Finding"
