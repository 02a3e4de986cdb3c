"""Search and distil light chest X-ray classifiers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from xlite_search.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def load_model(folder: Path | str, device: str = "cpu") -> Model:
    """The delivered model of a folder, such as `mlruns/models/NAME`: classes, preprocess, probabilities.

    See `xlite_search/model.py`; nothing in such a folder runs code. Raises BadInput or Damaged, a sentence each.
    """
    # by a computed name: torch comes now, not before, and what loads a model is no part of a trainable's code
    loaded: Model = importlib.import_module(f"{__name__}.model").load_model(folder, device)
    return loaded
