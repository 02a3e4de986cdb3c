"""What OpenAPI shows of bodies and errors, with examples."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Told(BaseModel):
    """Why a request was refused: a code for programs, a sentence for people."""

    code: str
    sentence: str


class Error(BaseModel):
    """The shape of every error."""

    error: Told


def _error(code: str, sentence: str) -> dict[str, Any]:
    example = {"error": {"code": code, "sentence": sentence}}
    return {"model": Error, "content": {"application/json": {"example": example}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("cut off", "the body was cut off"),
    401: _error("token", "a token is needed: Authorization: Bearer TOKEN"),
    403: _error("foreign origin", "a page of another origin gets no answer"),
    404: _error("unknown model", "there is one model here, 'lite'"),
    408: _error("slow", "the body came too slowly: nothing for 5 s, or not all of it"),
    413: _error("too large", "the body is larger than 32 MiB"),
    421: _error("foreign host", "this service is not called that; it is 127.0.0.1, ::1, localhost"),
    422: _error("damaged", "the image cannot be used: a PNG file that is cut off"),
    503: _error("busy", "64 requests wait already: try again in a moment"),
}


def _body(media: str, schema: dict[str, Any], example: object) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media: {"schema": schema, "example": example}}}}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
RAW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A file's bytes: PNG, JPEG or DICOM, told by content, not by name.",
        "content": dict.fromkeys(("image/png", "image/jpeg", "application/dicom", "application/octet-stream"), _BINARY),
    }
}
LINES_BODY = _body(
    "application/x-ndjson", {"type": "string"}, '{"name": "a.png", "image": "iVBORw0KGgo..."}\n{"name": "b.dcm", ...}'
)
TENSOR_BODY = _body(
    "application/json",
    {"type": "object", "required": ["inputs"]},
    {"inputs": [{"name": "images", "shape": [1, 1, 224, 224], "datatype": "UINT8", "data": [0, 1, 2]}]},
)
