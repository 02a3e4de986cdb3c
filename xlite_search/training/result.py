"""EpochResult: the outcome of an epoch, the one thing that a trainable yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xlite_search.training.predictions import Predictions

if TYPE_CHECKING:
    from xlite_search.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. The only thing that a trainable ever says; later needs extend it, none fork it.

    epoch     finished epochs, 1..n
    metrics   finite floats by slashed name: train/loss, train/lr, val/loss, val/auroc_macro, val/auroc/<class>, ...,
              time/epoch_s (training and validation), time/val_s, model/parameters, on a GPU energy/gpu_wh and
              energy/gpu_w; an undefined metric is absent
    improved  this is the best epoch so far by `monitor` (without validation: every epoch is)
    ended     None while training goes on, else why this epoch is the last, as a sentence
    checkpoint  the state after this epoch; valid until the generator is asked for the next
    predictions  logits of the validation images; None if there are none
    part      how the names of the weights begin that are delivered, and lose that beginning: a trainable whose model
              has parts for training alone, another head, says where the model is that its config names, "hybrid."
    """

    epoch: int
    metrics: dict[str, float]
    improved: bool
    ended: str | None
    checkpoint: Checkpoint
    predictions: Predictions | None = None
    part: str = ""

    def checkpoint_bytes(self) -> bytes:
        return self.checkpoint.to_bytes()

    def weights_bytes(self) -> bytes:
        """The model as it was judged, as safetensors: of all that was trained, its `part`. `checkpoint` keeps all."""
        import safetensors.torch

        judged = {name: tensor for name, tensor in self.checkpoint.judged.items() if name.startswith(self.part)}
        return bytes(safetensors.torch.save({n.removeprefix(self.part): t.contiguous() for n, t in judged.items()}))

    def predictions_bytes(self) -> bytes | None:
        return self.predictions.to_bytes() if self.predictions else None
