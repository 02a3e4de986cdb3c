"""Service: one exported model that is checked, ready, and spoken for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlite_search import limits
from xlite_search.deploy.predict import ANSWERS_LIMIT, Predictor, self_test
from xlite_search.deploy.serve.decoders import Decoders
from xlite_search.deploy.serve.engine import AHEAD, Answered, Engine
from xlite_search.deploy.serve.explainer import Explainer
from xlite_search.deploy.serve.guard import Bodies
from xlite_search.deploy.serve.metrics import Metrics
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.deploy.serve.replies import Overlay, Reply, Speaker, as_uri, overlaid
from xlite_search.errors import Damaged, XliteError, did_you_mean

#: maps that wait at most
MAPS = 4
CARD = "model_card.md"


@dataclass
class Service:
    """`ready` once its known answers were right; `unanswered` are requests that the end cut off."""

    folder: Path
    engine: Engine
    speaker: Speaker
    explainer: Explainer
    metrics: Metrics
    bodies: Bodies = field(default_factory=Bodies)
    ready: bool = False
    batches: int = 0
    unanswered: int = 0
    _maps: int = 0
    _mapping: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "maps"))

    @property
    def name(self) -> str:
        return self.speaker.manifest.name

    def about(self) -> dict[str, Any]:
        """What is served, as JSON."""
        about = self.speaker.manifest
        return {
            "name": about.name,
            "model": about.model,
            "sha256": about.sha256,
            "calibration": about.calibration,
            "preprocessing": self.speaker.preprocessing,
            "findings": {
                name: {"threshold": about.thresholds.get(name), **self.speaker.known[name]} for name in about.classes
            },
            "input": self.engine.predictor.preprocess.describe(),
            "flags": self.engine.domain is not None,
            "strict": self.engine.strict,
            "notice": about.notice,
            "versions": about.versions,
        }

    def card(self) -> str:
        """Raises Refusal if the exported folder has none."""
        path = self.folder / CARD
        if not path.is_file():
            raise Refusal(404, "no card", f"the exported folder has no {CARD}")
        return path.read_text(encoding="utf-8")

    def expect_finding(self, name: str) -> None:
        """Raises Refusal if the model knows no such finding."""
        if name and name not in self.speaker.classes:
            said = did_you_mean(name, self.speaker.classes)
            raise Refusal(422, "unknown finding", f"explain={name[:80]}: the model knows no such finding{said}")

    async def reply(self, body: bytes, explain: str = "", *, image: bool = False) -> Reply:
        """Raises Refusal."""
        with self._counted():
            found = await self.engine.answer(body)
        overlay = await self._overlay(found, explain) if explain else None
        reply = self.speaker.reply(found, overlay=overlay, image=image)
        self.metrics.answered(reply)
        return reply

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Refusal as why:
            if why.status == 422:
                self.metrics.refused.labels(why.code).inc()
            raise

    async def _overlay(self, found: Answered, finding: str) -> Overlay:
        if self._maps >= MAPS:
            raise Refusal(503, "busy", f"{MAPS} maps are waited for already: try again in a moment", again=5)
        self._maps += 1
        try:
            place = self.speaker.classes.index(finding)
            work = asyncio.get_running_loop().run_in_executor(self._mapping, self.explainer, found.image, place)
            return Overlay(finding=finding, png=as_uri(overlaid(found.image, await work)))
        except (XliteError, TimeoutError) as why:
            raise Refusal(503, "no map", f"there is no map of it: {why}", again=5) from None
        finally:
            self._maps -= 1

    def check(self) -> None:
        """Asks the known answers. Raises Damaged if they are others here."""
        found = self_test(self.engine.predictor)
        if not found.passed:
            raise Damaged(
                f"{self.folder}: known answers differ by {found.logits:.1e} in logits (limit {ANSWERS_LIMIT:g}): this "
                f"machine computes another model; compare the versions in export.json"
            )
        self.ready = True

    def close(self) -> None:
        """Ends what is at work."""
        self.ready = False
        self._mapping.shutdown(wait=False, cancel_futures=True)
        self.explainer.close()
        self._mapping.shutdown()
        self.engine.close()


def opened(folder: Path, *, strict: bool = False) -> Service:
    """A service over an exported folder, every file checked; not ready before `check`.

    Raises as `Predictor.open`.
    """
    predictor = Predictor.open(folder)
    decoders = Decoders(predictor.preprocess, limits.cores() + AHEAD)
    engine = Engine(predictor, decoders, predictor.domain, strict)
    speaker = Speaker(folder, predictor.manifest)
    return Service(folder, engine, speaker, Explainer(folder), Metrics(lambda: engine.at_work))
