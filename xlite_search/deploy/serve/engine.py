"""Engine of the service: bodies to answers, as many at a time as there are cores, behind a queue of bounded length.

Each image is computed alone on one thread. Batches were measured: on a processor they are no faster than as many single
images beside each other, and change the last digits of an answer with what is asked beside it. While the cores compute,
the next images are decoded, so that no core waits for a decoder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Semaphore
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from xlite_search import limits
from xlite_search.data.sources import Unreadable
from xlite_search.deploy.domain import Domain, Flag
from xlite_search.deploy.predict import Floats, Predictor
from xlite_search.deploy.serve.bodies import Kind
from xlite_search.deploy.serve.decoders import BusyError, DecoderEndedError, Decoders
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.errors import BadInput

#: requests that wait at most, and seconds that one may take in all
WAITING, DEADLINE = 64, 20.0
#: images that are decoded while the model is at as many as there are cores
AHEAD = 2

T = TypeVar("T")


class Answered(NamedTuple):
    """What the model says of a body: logits and probabilities float32 `[class]`, and what is unusual about it."""

    kind: Kind
    image: NDArray[np.uint8]
    logits: Floats
    probabilities: Floats
    flags: list[Flag]


@dataclass
class Engine:
    """A model that is ready, its decoders, and its threads."""

    predictor: Predictor
    decoders: Decoders
    domain: Domain | None = None
    strict: bool = False
    waiting: int = WAITING
    deadline: float = DEADLINE
    at_work: int = 0
    cores: int = field(default_factory=limits.cores)  # asked once: it takes as long as a small model
    _threads: ThreadPoolExecutor = field(init=False)
    _free: Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.cores + AHEAD, "image")
        self._free = Semaphore(self.cores)

    @property
    def most(self) -> int:
        """Requests that are taken at once: those at work, and those that wait."""
        return self.cores + self.waiting

    async def answer(self, body: bytes) -> Answered:
        """Raises Refusal: the body is of no use, there is no room, or it takes too long."""
        return await self.run(lambda: self._answer(body))

    async def tensor(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Prepared images, `[batch, channel, size, size]`, to logits and probabilities; each is computed alone."""
        found = await asyncio.gather(
            *(self.run(lambda image=image: self._computed(image)) for image in images)  # type: ignore[misc]
        )
        logits, chances = zip(*found, strict=True)
        return np.concatenate(logits), np.concatenate(chances)

    async def run(self, work: Callable[[], T]) -> T:
        """On one of the threads, once there is room. Raises Refusal if there is none, or if it takes too long."""
        if self.at_work >= self.most:
            raise Refusal(503, "busy", f"{self.waiting} requests wait already: try again in a moment", again=1)
        self.at_work += 1
        try:
            async with asyncio.timeout(self.deadline):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise Refusal(503, "late", f"it was not answered within {self.deadline:g} s: try again", again=5) from None
        finally:
            self.at_work -= 1

    def _answer(self, body: bytes) -> Answered:
        try:
            kind, image = self.decoders(body)
        except Unreadable as why:
            raise Refusal(422, why.cause, f"the image cannot be used: {why}") from None
        except BusyError as why:
            raise Refusal(503, "not decoded", f"{why}: try again", again=5) from None
        except DecoderEndedError as why:
            raise Refusal(422, "decoder ended", f"the image cannot be used: {why}") from None
        except BadInput as why:
            raise Refusal(501, "no decoder", f"the image cannot be used here: {why}") from None
        except TimeoutError as why:
            raise Refusal(422, "too slow", f"the image cannot be used: {why}") from None
        flags = self.domain.flags(image) if self.domain else []
        if flags and self.strict:
            raise Refusal(422, flags[0].name, f"the image is refused: {flags[0].says}")
        logits, chances = self._computed(image)
        return Answered(kind, image, logits[0], chances[0], flags)

    def _computed(self, image: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        with self._free:
            return self.predictor(image[None])

    def close(self) -> None:
        """Ends the decoders, whatever they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.decoders.close()
        self._threads.shutdown()
