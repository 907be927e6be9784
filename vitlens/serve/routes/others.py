"""/v2/embed as Cohere's clients speak, and Weaviate's multi2vec-bind: /vectorize, /meta, /.well-known."""

from __future__ import annotations

import uuid
from functools import cache
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, create_model
from starlette.responses import JSONResponse, Response

from vitlens.modality import list_modalities
from vitlens.serve.bodies import aside, read_body
from vitlens.serve.content import Item
from vitlens.serve.refusals import Refusal, invalid
from vitlens.serve.routes.common import REFUSALS, as_base64, asked, embedded, listed, ready_service, remarks_of, shortened, takes
from vitlens.serve.schemas import CohereRequest
from vitlens.serve.service import Service
from vitlens.vectors import signs, whole_numbers

router = APIRouter(responses=REFUSALS)


# --- Cohere ---


@router.post("/v2/embed", openapi_extra=takes(CohereRequest, form=False))
async def embed(request: Request) -> JSONResponse:
    """Embeddings in the types that were asked for: numbers, or quantised."""
    service, body = await asked(request, CohereRequest)
    grammar = service.grammar
    given = {name: value for name in ("texts", "images", "inputs") if (value := getattr(body, name)) is not None}
    if len(given) != 1:
        raise invalid(f"give one of texts, images and inputs; found {', '.join(given) or 'none'}", "texts")
    [(name, values)] = given.items()
    size = request.scope["vitlens.visit"].received
    items = await aside(size, grammar.items, values, name, "image" if name == "images" else "text")
    found = await embedded(request, service, items)
    vectors = shortened(found.vectors, body.output_dimension, "output_dimension")
    kinds = list(dict.fromkeys(body.embedding_types or ["float"]))
    if vectors.shape[1] % 8 and {"binary", "ubinary"} & set(kinds):
        raise invalid(f"binary types want a multiple of 8 dimensions, found {vectors.shape[1]}", "output_dimension")
    made = await aside(vectors.nbytes, lambda: {kind: _as_type(vectors, kind) for kind in kinds})
    billed = {"input_tokens": found.tokens, "images": found.modalities.get("image", 0)}
    meta = {"api_version": {"version": "2"}, "billed_units": billed}
    reply = {"id": str(uuid.uuid4()), "embeddings": made, "texts": body.texts or [], "meta": meta}
    return JSONResponse({**reply, "response_type": "embeddings_by_type", **remarks_of(found)})


def _as_type(vectors: np.ndarray, kind: str) -> list[Any]:
    """Embeddings [n, E] in one of Cohere's types: see `vitlens.vectors`."""
    if kind == "float":
        return list(vectors.tolist())
    if kind == "base64":
        return [as_base64(row) for row in vectors]
    if kind in ("binary", "ubinary"):
        packed = signs(vectors)
        return list((packed if kind == "ubinary" else packed.astype(np.int16) - 128).tolist())
    whole = whole_numbers(vectors)
    return list((whole if kind == "int8" else whole.astype(np.int16) + 128).tolist())


# --- Weaviate ---

_NAMES = ("text", "image", "audio", "video", "imu", "depth", "thermal")
"""Of multi2vec-bind's own protocol; each has its list in every answer."""


def _field(modality: str) -> str:
    return {"text": "texts", "image": "images"}.get(modality, modality)


def _vectors_field(modality: str) -> str:
    first, *rest = modality.split("_")
    return first + "".join(part.capitalize() for part in rest) + "Vectors"


@cache
def _vectorize_request(modalities: tuple[str, ...]) -> type[BaseModel]:
    """A list of each of these."""
    fields: Any = {_field(name): (list[str] | None, None) for name in modalities}
    return create_model("VectorizeRequest", __config__=ConfigDict(extra="forbid"), **fields)


def _vectorized() -> tuple[str, ...]:
    """The sensors that the protocol names, and those that are installed now."""
    return tuple(dict.fromkeys([*_NAMES, *list_modalities()]))


@router.post("/vectorize", openapi_extra=takes(_vectorize_request(_vectorized()), form=False))
async def vectorize(request: Request) -> JSONResponse:
    """Embeddings of texts, and of files in base64, by sensor."""
    service = await ready_service(request)
    known = _vectorized()
    body = await read_body(request, _vectorize_request(known), service.grammar)
    items: list[Item] = []
    places: dict[str, range] = {}
    size = request.scope["vitlens.visit"].received
    for modality in known:
        name = _field(modality)
        if values := getattr(body, name):
            found = await aside(size, service.grammar.items, values, name, modality)
            places[modality] = range(len(items), len(items) + len(found))
            items += found
    result = await embedded(request, service, items)
    rows = await listed(result.vectors)
    names = dict.fromkeys([*_NAMES, *places])
    reply = {_vectors_field(name): [rows[place] for place in places.get(name, ())] for name in names}
    return JSONResponse({**reply, **remarks_of(result)})


@router.get("/meta")
async def meta(request: Request) -> dict[str, Any]:
    """What the model is."""
    service = await ready_service(request)
    space = service.model.space
    return {"model": service.name, "space": space.name, "dimensions": space.dim, "modalities": service.model.modalities}


@router.get("/.well-known/live", status_code=204)
@router.head("/.well-known/live", status_code=204, include_in_schema=False)
async def live() -> Response:
    """204 as long as the process answers."""
    return Response(status_code=204)


@router.get("/.well-known/ready", status_code=204)
@router.head("/.well-known/ready", status_code=204, include_in_schema=False)
async def ready(request: Request) -> Response:
    """204 once requests are answered at once."""
    service: Service = request.app.state.service
    if service.state != "ready":
        raise Refusal(503, f"not ready: {service.state}", code="not_ready", headers={"Retry-After": "2"})
    return Response(status_code=204)
