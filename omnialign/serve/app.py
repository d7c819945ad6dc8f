"""The service as an ASGI application."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnialign import __version__
from omnialign.errors import OmniAlignError
from omnialign.index import Index
from omnialign.serve.guard import Door, Guard, refusal
from omnialign.serve.limits import Limits, RefusedError
from omnialign.serve.metrics import Metrics
from omnialign.serve.routes import router
from omnialign.serve.service import Service

PAGE = Path(__file__).parent / "page"
_log = logging.getLogger(__name__)


def create_app(index: Index, *, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """The service over a library, with its page at `/`.

    Args:
        index: what is searched.
        token: what whoever asks must know; without one, only requests to this machine's own names
            (`localhost`, `127.0.0.1`) are answered.
        limits: what a stranger may cost.

    Raises:
        OmniAlignError: the token is too short, or the model of the library cannot be loaded.
    """
    door, limits = Door(token), limits or Limits()
    service = Service(index, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="OmniAlign",
        version=__version__,
        description="Searches a library of files of any kind by words, or by another file.",
        docs_url=None,  # FastAPI's own page loads its script from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(router)
    _add_pages(app, door)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_exception_handler(OmniAlignError, _users_mistake)
    app.add_exception_handler(Exception, _our_mistake)
    app.add_middleware(Guard, door=door, limits=limits)
    app.add_middleware(Measured, metrics=service.metrics)
    return app


def _add_pages(app: FastAPI, door: Door) -> None:
    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @app.get("/login", include_in_schema=False)
    def login_page() -> Response:
        return FileResponse(PAGE / "login.html") if door.token else RedirectResponse("/", 303)

    @app.post("/login", include_in_schema=False)
    def login(request: Request, token: Annotated[str, Form()] = "") -> Response:
        if not door.is_token(token):
            return RedirectResponse("/login#wrong", 303)
        return door.let_in(request.url.scheme == "https")

    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"][1:])
    return refusal(RefusedError(422, f"{where}: {first['msg']}"))


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at this address", 405: "this address wants another method"}
    return refusal(RefusedError(error.status_code, said.get(error.status_code, error.detail)))


async def _users_mistake(_: Request, error: Exception) -> Response:
    return refusal(error if isinstance(error, RefusedError) else RefusedError(400, str(error)))


async def _our_mistake(request: Request, error: Exception) -> Response:
    metrics: Metrics = request.app.state.service.metrics
    metrics.errors.labels(type(error).__name__).inc()
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refusal(RefusedError(500, "this failed, and it is not your fault; the log says more"))


class Measured:
    """Counts requests, and how long they take."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def seen(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            path = getattr(scope.get("route"), "path", "") or "other"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)
