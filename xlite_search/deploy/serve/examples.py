"""What OpenAPI shows of bodies and errors, with examples."""

from __future__ import annotations

from typing import Any

#: the shape of every error: a code for programs, a sentence for people
_TOLD = {
    "type": "object",
    "required": ["code", "sentence"],
    "properties": {key: {"type": "string"} for key in ("code", "sentence")},
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TOLD}}


def _error(code: str, sentence: str) -> dict[str, Any]:
    """Said to be JSON whatever else an address answers with."""
    example = {"error": {"code": code, "sentence": sentence}}
    return {"description": sentence, "content": {"application/json": {"schema": ERROR, "example": example}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("cut off", "the body was cut off"),
    401: _error("token", "a token is needed: Authorization: Bearer TOKEN"),
    403: _error("foreign origin", "a page of another origin gets no answer"),
    404: _error("unknown model", "there is one model here, 'lite'"),
    405: _error("refused", "this address takes other methods"),
    408: _error("slow", "the body came too slowly: it is waited for 4 s, and a second for every 128 KiB"),
    413: _error("too large", "the body is larger than 32 MiB"),
    421: _error("foreign host", "this service is not called that; it is 127.0.0.1, ::1, localhost"),
    422: _error("damaged", "the image cannot be used: a PNG file that is cut off"),
    500: _error("failed", "it failed here; the service's log says where"),
    501: _error(
        "no decoder", "the image cannot be used here: x.dcm is a DICOM file; to read it, `pip install pydicom`"
    ),
    503: _error("busy", "64 requests wait already: try again in a moment"),
}


#: what `/v1/predict` answers, shortened
REPLY: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {
                "example": {
                    "model": "lite",
                    "sha256": "9f2c",
                    "preprocessing": "aef00367ebe47f68",
                    "calibration": "51ab",
                    "kind": "DICOM",
                    "flags": [{"code": "inverted", "sentence": "its negative is like the training images"}],
                    "findings": [
                        {
                            "finding": "Effusion",
                            "logit": -1.2,
                            "probability": 0.23,
                            "threshold": 0.11,
                            "decision": True,
                            "rule": "sensitivity",
                            "sensitivity": {"value": 0.93, "low": 0.90, "high": 0.96},
                            "cannot_be_judged": "",
                        }
                    ],
                    "overlay": None,
                    "image": None,
                    "notice": "Not for clinical use.",
                }
            }
        }
    }
}


def with_token(described: dict[str, Any]) -> dict[str, Any]:
    """A description that says how a token is sent; whether one is needed is the service's to say."""
    described.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{}, {"token": []}]
    return described


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
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"const": "images"},
        "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
        "datatype": {"const": "UINT8"},
        "data": {"type": "array", "description": "whole numbers from 0 to 255 in row-major order, or lists of them"},
    },
}
_ASKED = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 200},
        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
    },
}
TENSOR_BODY = _body(
    "application/json",
    _ASKED,
    {"inputs": [{"name": "images", "shape": [1, 1, 224, 224], "datatype": "UINT8", "data": [0, 1, 2]}]},
)
