"""Whether the service is alive, whether it is ready, and what it measures."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from vitlens.serve.service import Service

router = APIRouter()


@router.get("/healthz")
async def health(request: Request) -> dict[str, Any]:
    """Alive, since it answers; `ready` once the model is loaded. 200 either way."""
    service: Service = request.app.state.service
    return {"alive": True, "ready": service.state == "ready", "state": service.state}


@router.get("/healthz/live")
async def live() -> dict[str, bool]:
    """200 as long as the process answers."""
    return {"alive": True}


@router.get("/healthz/ready", responses={503: {"description": "Not ready yet, or closing."}})
async def ready(request: Request) -> JSONResponse:
    """200 once requests are answered at once, 503 before that and while the service closes."""
    service: Service = request.app.state.service
    good = service.state == "ready"
    return JSONResponse({"ready": good, "state": service.state}, status_code=200 if good else 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics, under text-embeddings-inference's names and under `vitlens_`."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
