"""The application: the service behind its gate, as FastAPI routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from vitlens.errors import VitlensError
from vitlens.serve.gate import Gate
from vitlens.serve.refusals import invalid, refusal_of
from vitlens.serve.routes import chat, found, openai, others, own, page, state
from vitlens.serve.service import Service


def create_app(service: Service) -> FastAPI:
    """The application of a service; its lifespan starts the service and closes it.

    The server listens while the model is loaded: requests that come meanwhile wait for it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(service.start())
        try:
            yield
        finally:
            await starting
            await service.close()

    # No pages with documentation: theirs load scripts from other hosts. /openapi.json says the same.
    app = FastAPI(title="vitlens", version=version("vitlens"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    for part in (openai, own, found, chat, others, page, state):
        app.include_router(part.router)
    for kind in (HTTPException, VitlensError, RequestValidationError):
        app.add_exception_handler(kind, _refused)
    app.add_middleware(Gate, service=service)
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """Every error that is foreseen, in one shape."""
    if isinstance(error, RequestValidationError):
        error = invalid("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]))
    refusal = refusal_of(error)
    visit = request.scope.get("vitlens.visit")
    if visit is not None:
        visit.code = refusal.code
    return refusal.response()
