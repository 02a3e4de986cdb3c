"""torch.compile of a run's models: one cache on disk for all runs, static shapes, nothing left to the next run.

Inductor's code lies in `compiled/` beside the studies, unless TORCHINDUCTOR_CACHE_DIR names another folder. It is found
by a hash of graph, shapes, device and versions: trials of one model and batch size share it, whichever process they
run in, and it can change no result. It may be deleted at any time.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from xlite_search import places
from xlite_search.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

CACHE = "TORCHINDUCTOR_CACHE_DIR"
BACKEND = "inductor"  # tests, and benchmarks on a CPU, take one that is quicker


def compile_model(model: nn.Module) -> None:
    """Has a model's forward pass compiled, in place, when it is first called: once in training mode, once in eval mode.

    Each size of batch is compiled by itself; `whole_batches_only` leaves out those that are rare.

    Raises:
        BadInput: the GPU's code is made by Triton, which is not installed.
    """
    import torch

    if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
        raise BadInput(
            "compile = true: torch.compile makes a GPU's code by Triton, which is not installed (on Windows "
            "`pip install triton-windows`); install it, or set compile to false"
        )
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CACHE, "") in ("", default_cache_dir()):  # torch names its own as soon as it is imported
        os.environ[CACHE] = str(places.compiled_folder())
    model.compile(dynamic=False, backend=BACKEND)


def whole_batches_only(images: int, batch_size: int, *, compiled: bool) -> AbstractContextManager[object]:
    """Within it a batch of another size than `batch_size` is computed uncompiled: an epoch's last one is not worth the
    minute that its code would take."""
    if not compiled or images == batch_size:
        return nullcontext()
    import torch

    plainly: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return plainly


def forget() -> None:
    """Drops this process's compiled code, and the memory that it holds, before another run begins.

    torch keeps eight versions of a function and computes it uncompiled from the ninth on, with a warning at most: a
    reused process would get there with its fifth model. What lies on disk stays.
    """
    if "torch._dynamo" in sys.modules:  # it takes seconds to import
        import torch

        torch.compiler.reset()
