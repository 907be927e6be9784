"""/v1/embeddings and /v1/models, as OpenAI's, vLLM's and infinity's clients speak."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vitlens.serve.bodies import aside, items_of
from vitlens.serve.routes.common import REFUSALS, as_base64, asked, embedded, ready_service, remarks_of, shortened, takes
from vitlens.serve.schemas import EmbeddingReply, EmbeddingRequest
from vitlens.serve.service import Embedded, Service

router = APIRouter(responses=REFUSALS)


@router.post("/v1/embeddings", openapi_extra=takes(EmbeddingRequest), responses={200: {"model": EmbeddingReply}})
@router.post("/embeddings", include_in_schema=False)
async def embeddings(request: Request) -> JSONResponse:
    """Embeddings of texts and of files of any sensor, of length 1, in input order."""
    service, body = await asked(request, EmbeddingRequest)
    found = await embedded(request, service, await items_of(request, body, service.grammar))
    found.vectors = shortened(found.vectors, body.dimensions)
    return await aside(found.vectors.nbytes, _reply, found, service.name, body.encoding_format)


def _reply(found: Embedded, model: str, encoding: str) -> JSONResponse:
    rows = [as_base64(row) for row in found.vectors] if encoding == "base64" else found.vectors.tolist()
    data = [
        {"object": "embedding", "index": index, "embedding": row, "modality": kind}
        for index, (row, kind) in enumerate(zip(rows, found.kinds, strict=True))
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return JSONResponse({"object": "list", "data": data, "model": model, "usage": usage, **remarks_of(found)})


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(request: Request) -> dict[str, Any]:
    """The model that is served, its space, and what each of its sensors reads."""
    service = await ready_service(request)
    return {"object": "list", "data": [_card(service, name) for name in [service.name, *service.settings.aliases]]}


@router.get("/v1/models/{name:path}")
async def one_model(request: Request, name: str) -> dict[str, Any]:
    """The same of one model."""
    service = await ready_service(request)
    service.check_model(name)
    return _card(service, name)


def _card(service: Service, name: str) -> dict[str, Any]:
    model = service.model
    sensors = {}
    for modality in model.modalities:
        sensor = model.modality(modality)
        sensors[modality] = {
            "unit": sensor.unit,
            "accepts": sensor.accepts,
            "extensions": list(sensor.extensions),
            "read_options": [option for option in sensor.read_options() if option != "format"],
            "kind": sensor.tower,
        }
    about = {"space": model.space.name, "dimensions": model.space.dim, "licence": model.spec.licence, "modalities": sensors}
    return {"id": name, "object": "model", "created": service.created, "owned_by": "vitlens", **about}
