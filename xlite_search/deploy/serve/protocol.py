"""Open Inference Protocol V2, as KServe and Triton have it: health, what the model takes, tensors in JSON."""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Path, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlite_search import __version__
from xlite_search.deploy.folder import IMAGES, LOGITS, PROBABILITIES
from xlite_search.deploy.serve import examples
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.deploy.serve.service import Service

#: images of a request; bytes of a number with what is around it, and of all else
MOST, NUMBER, BESIDE = 16, 6, 1 << 16
AXES = 4


class Tensor(BaseModel):
    """A tensor in row-major order."""

    model_config = ConfigDict(extra="ignore")
    name: Literal["images"]
    shape: tuple[int, int, int, int]
    datatype: Literal["UINT8"]
    data: list[Any]


class Wanted(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="ignore")
    name: Literal["logits", "probabilities"]
    parameters: dict[str, Any] = {}


class Asked(BaseModel):
    """A request of `infer`."""

    model_config = ConfigDict(extra="ignore")
    id: str = Field("", max_length=200)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] = Field([], max_length=2)
    parameters: dict[str, Any] = {}


Name = Annotated[str, Path(alias="model")]


def add(app: FastAPI, service: Service) -> None:
    """The addresses below /v2."""

    @app.head("/v2/health/live", include_in_schema=False)
    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.head("/v2/health/ready", include_in_schema=False)
    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        _expect_ready(service)
        return {"ready": True}

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": "xlite_search", "version": __version__, "extensions": []}

    @app.get("/v2/models/{model}")
    async def model(name: Name) -> dict[str, Any]:
        """What the model takes and gives."""
        _expect_model(service, name)
        shape, findings = _shape(service), len(service.speaker.classes)
        outputs = [{"name": each, "datatype": "FP32", "shape": [-1, findings]} for each in (LOGITS, PROBABILITIES)]
        return {
            "name": service.name,
            "versions": [_version(service)],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": IMAGES, "datatype": "UINT8", "shape": [-1, *shape]}],
            "outputs": outputs,
        }

    @app.get("/v2/models/{model}/ready")
    async def model_ready(name: Name) -> dict[str, Any]:
        _expect_model(service, name)
        _expect_ready(service)
        return {"name": service.name, "ready": True}

    @app.post("/v2/models/{model}/infer", openapi_extra=examples.TENSOR_BODY)
    async def infer(name: Name, request: Request) -> dict[str, Any]:
        """Prepared images, uint8, to logits and probabilities. Binary tensors are not taken."""
        _expect_model(service, name)
        shape = _shape(service)
        async with service.bodies.of(request, MOST * prod(shape) * NUMBER + BESIDE) as body:
            asked = _asked(body)
        logits, chances = await service.engine.tensor(_images(asked.inputs[0], shape))
        wanted: set[str] = {each.name for each in asked.outputs} or {LOGITS, PROBABILITIES}
        outputs = [
            {"name": each, "datatype": "FP32", "shape": list(found.shape), "data": found.ravel().tolist()}
            for each, found in ((LOGITS, logits), (PROBABILITIES, chances))
            if each in wanted
        ]
        return {
            "model_name": service.name,
            "model_version": _version(service),
            "id": asked.id,
            "outputs": outputs,
        }

    @app.get("/v2/models/{model}/versions/{version}")
    async def versioned(name: Name, version: str) -> dict[str, Any]:
        _expect_version(service, version)
        return await model(name)

    @app.get("/v2/models/{model}/versions/{version}/ready")
    async def versioned_ready(name: Name, version: str) -> dict[str, Any]:
        _expect_version(service, version)
        return await model_ready(name)

    @app.post("/v2/models/{model}/versions/{version}/infer", openapi_extra=examples.TENSOR_BODY)
    async def versioned_infer(name: Name, version: str, request: Request) -> dict[str, Any]:
        _expect_version(service, version)
        return await infer(name, request)


def _version(service: Service) -> str:
    return service.speaker.manifest.sha256[:12]


def _expect_version(service: Service, version: str) -> None:
    if version != _version(service):
        raise Refusal(404, "unknown version", f"there is one version here, '{_version(service)}'")


def _shape(service: Service) -> list[int]:
    of = service.engine.predictor.preprocess
    return [of.channels, of.size, of.size]


def _expect_ready(service: Service) -> None:
    if not service.ready:
        raise Refusal(503, "not ready", "it is not ready, or is about to end", again=1)


def _expect_model(service: Service, name: str) -> None:
    if name != service.name:
        raise Refusal(404, "unknown model", f"there is one model here, '{service.name}'")


def _asked(body: bytes) -> Asked:
    try:
        asked = Asked.model_validate_json(body)
    except ValidationError as why:
        first = why.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refusal(422, "malformed", f"{where or 'body'}: {first['msg']}") from None
    if asked.parameters.get("binary_data_output") or any(each.parameters.get("binary_data") for each in asked.outputs):
        raise Refusal(422, "binary", "binary tensors are not given: leave binary_data out")
    return asked


def _images(tensor: Tensor, shape: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    count = tensor.shape[0]
    if list(tensor.shape[1:]) != shape or not 1 <= count <= MOST:
        raise Refusal(422, "shape", f"the model takes [1 to {MOST}, {', '.join(map(str, shape))}], uint8")
    try:
        flat = np.frombuffer(_numbers(tensor.data), np.uint8)
        return flat.reshape(tensor.shape)
    except (ValueError, TypeError):
        raise Refusal(422, "data", f"data: expected {prod(tensor.shape)} whole numbers from 0 to 255") from None


def _numbers(data: list[Any]) -> bytes:
    """Of a list, or of lists in lists. Raises ValueError or TypeError for what is no byte; numpy would take text."""
    for _ in range(AXES - 1):
        if data and isinstance(data[0], list):
            data = list(chain.from_iterable(data))
    if set(map(type, data)) - {int}:  # `True` would be 1
        raise TypeError
    return bytes(data)
