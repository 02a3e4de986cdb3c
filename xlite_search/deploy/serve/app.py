"""Application of the service: its addresses, and what is refused before any of them is reached."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xlite_search import __version__
from xlite_search.deploy.serve import batch, examples, protocol
from xlite_search.deploy.serve.guard import Guard
from xlite_search.deploy.serve.refusals import Refusal
from xlite_search.deploy.serve.replies import Reply
from xlite_search.deploy.serve.service import Service
from xlite_search.errors import did_you_mean

LOG = logging.getLogger("uvicorn.error")
PAGE = Path(__file__).with_name("page.html")
DESCRIPTION = (
    "Answers for chest radiographs: PNG, JPEG or DICOM as the raw body of a request, told by content. **Not for "
    "clinical use.** Every error is `{error: {code, sentence}}`."
)


#: of every answer; the page's own policy allows the script and the style that are in it, and no other
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: a target that is a whole address (RFC 9112, 3.2.2)
ABSOLUTE = re.compile(r"(?i:https?)://([^/]*)(/.*)?", re.DOTALL)
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def application(service: Service, guard: Guard) -> FastAPI:
    """The whole service over one model."""
    app = FastAPI(
        title="xlite_search",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses=examples.ERRORS,
    )
    _refusals(app)
    app.add_middleware(Outside, service=service, guard=guard)
    _predictions(app, service)
    _pages(app, service)
    protocol.add(app, service)
    described = app.openapi
    app.openapi = lambda: examples.with_token(described())  # type: ignore[method-assign]
    return app


def _refusals(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, why: Refusal) -> Response:
        return response_of(why)

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, why: HTTPException) -> Response:
        words = {404: "there is no such address; GET /openapi.json lists them", 405: "this address takes other methods"}
        sentence = words.get(why.status_code, str(why.detail))
        answer = response_of(Refusal(why.status_code, "not found" if why.status_code == 404 else "refused", sentence))
        answer.headers.update(why.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, why: RequestValidationError) -> Response:
        first = why.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return response_of(Refusal(422, "malformed", f"{where}: {first['msg']}"))


def response_of(why: Refusal) -> Response:
    headers = {"Retry-After": str(why.again)} if why.again else {}
    if why.status == 400:
        headers["Connection"] = "close"  # nobody knows where the next request would begin
    if why.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(why.as_json(), why.status, headers)


def _refusal(why: BaseException) -> Refusal:
    """What is said of whatever ended a request."""
    if isinstance(why, Refusal):
        return why
    if isinstance(why, asyncio.CancelledError):
        return Refusal(503, "ending", "the service ended before it was answered", again=5)
    LOG.error("a request failed", exc_info=why)
    return Refusal(500, "failed", "it failed here; the service's log says where")


class Outside:
    """What every request passes: host, origin, token; then it is counted and timed, and its answer gets the headers."""

    def __init__(self, app: ASGIApp, service: Service, guard: Guard) -> None:
        self.app, self.service, self.guard = app, service, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope, status, begun = _origin_form(scope), 500, False

        async def sent(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                begun, status, headers = True, message["status"], MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with self.service.metrics.timed() as done:
            try:
                self.guard(Request(scope))
                await self.app(scope, receive, sent)
            except (Exception, asyncio.CancelledError) as why:
                ended = isinstance(why, asyncio.CancelledError)
                self.service.unanswered += ended
                if begun and not ended:
                    raise
                if not begun:
                    await response_of(_refusal(why))(scope, receive, sent)
            done(getattr(scope.get("route"), "path", "elsewhere"), status)


def _origin_form(scope: Scope) -> Scope:
    """Of a target that is a whole address, the path; its name counts then, not the Host header's."""
    found = ABSOLUTE.fullmatch(scope["path"])
    if not found:
        return scope
    path, host = found[2] or "/", found[1].encode("latin-1", "replace")
    headers = [(b"host", host), *(each for each in scope["headers"] if each[0] != b"host")]
    return {**scope, "path": path, "raw_path": path.encode(), "headers": headers}


class Lines(StreamingResponse):
    """Lines that are made while the body is read: nobody else may take pieces of it to see whether it was cut off."""

    media_type = "application/x-ndjson"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


def _predictions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", response_model=Reply, responses=examples.REPLY, openapi_extra=examples.RAW_BODY)
    async def predict(
        request: Request,
        explain: str = Query("", description="A finding: its occlusion map over the image comes with the reply."),
        image: bool = Query(False, description="The image as the model sees it comes with the reply."),
    ) -> Response:
        """What the model says of one radiograph, the raw body: PNG, JPEG or DICOM."""
        _expect_known(request, ("explain", "image"))
        service.expect_finding(explain)
        async with service.bodies.of(request) as body:
            reply = await service.reply(body, explain, image=image)
        return Response(reply.model_dump_json(), media_type="application/json")

    @app.post("/v1/predict-batch", openapi_extra=examples.LINES_BODY, response_class=Lines)
    async def predict_batch(request: Request) -> Lines:
        """What the model says of many radiographs: a line of JSON in, `{"name": ..., "image": base64}`, a line out."""
        batch.expect_room(service)
        return Lines(batch.replies(service, request))


def _expect_known(request: Request, names: tuple[str, ...]) -> None:
    """Raises Refusal for a parameter that is none: a map that was asked for with a slip would silently not come."""
    for name in request.query_params:
        if name not in names:
            raise Refusal(422, "unknown parameter", f"{name[:80]}: no such parameter{did_you_mean(name, names)}")


def _pages(app: FastAPI, service: Service) -> None:
    text = PAGE.read_text(encoding="utf-8")
    policy = POLICY.format(script=_hash(text, "script"), style=_hash(text, "style"))

    @app.head("/", include_in_schema=False)
    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """The page for a browser."""
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """What is served: its name, hashes, findings and thresholds."""
        return service.about()

    @app.get("/v1/card", response_class=PlainTextResponse)
    async def card() -> str:
        """The model's card, Markdown."""
        return service.card()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        return Response(service.metrics.text(), media_type=service.metrics.media_type)


def _hash(page: str, tag: str) -> str:
    """Of the one inline element of that kind, as a policy names it."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
