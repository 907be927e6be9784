"""What routes share: the service once it is ready, the visit that the log tells of, and how a route is described."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel
from starlette.requests import Request

from vitlens.serve.bodies import FORM, JSON, aside, read_body
from vitlens.serve.content import Item
from vitlens.serve.logs import Visit
from vitlens.serve.refusals import invalid
from vitlens.serve.schemas import CohereRequest, ErrorReply, Inputs
from vitlens.serve.service import Embedded, Service
from vitlens.vectors import cut

B = TypeVar("B", bound=Inputs | CohereRequest)
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorReply, "description": "Something that cannot be read, or is not allowed."},
    401: {"model": ErrorReply, "description": "No token, or a wrong one."},
    413: {"model": ErrorReply, "description": "Above a limit, which is named."},
    429: {"model": ErrorReply, "description": "The queue is full; Retry-After says when to come again."},
}
INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
"""Of a file that is not ours: it is shown, never run as a page of this service."""
FILES = {
    "type": "object",
    "description": "Files under `file` or a modality's name, texts under `text`, read options as `audio.rate`, fields by name.",
    "additionalProperties": {},
}


def takes(kind: type[BaseModel], *, form: bool = True) -> dict[str, Any]:
    """What a route takes, for /openapi.json: the body is read by `read_body`, which FastAPI does not see."""
    content: dict[str, Any] = {JSON: {"schema": kind.model_json_schema()}}
    if form:
        content[FORM] = {"schema": FILES}
    return {"requestBody": {"required": True, "content": content}}


async def ready_service(request: Request) -> Service:
    """The service; who comes before it is ready waits."""
    service: Service = request.app.state.service
    visit_of(request).route = request.scope["route"].path
    return await service.ready()


async def asked(request: Request, kind: type[B]) -> tuple[Service, B]:
    """The service, and the request's body as `kind`, once it names no other model.

    Raises:
        Refusal: as `read_body`, or another model's name.
    """
    service = await ready_service(request)
    body = await read_body(request, kind, service.grammar)
    service.check_model(body.model)
    return service, body


def visit_of(request: Request) -> Visit:
    """What the log will tell of this request."""
    visit: Visit = request.scope["vitlens.visit"]
    return visit


async def embedded(request: Request, service: Service, items: Sequence[Item]) -> Embedded:
    """The items' embeddings, told to the log."""
    visit_of(request).modalities.update(given.modality or "unknown" for item in items for given in item)
    found = await service.embed(items)
    visit_of(request).modalities.clear()
    visit_of(request).modalities.update(found.modalities)
    return found


def remarks_of(found: Embedded) -> dict[str, Any]:
    """The field `remarks`, where there is something to say."""
    listed = [{"index": index, "text": text} for index, text in found.remarks]
    return {"remarks": listed} if listed else {}


def shortened(vectors: np.ndarray, dimensions: int | None, param: str = "dimensions") -> np.ndarray:
    """The first `dimensions` values of embeddings [n, E], of length 1 again.

    Raises:
        Refusal: more values than there are, or nothing left of a vector.
    """
    if dimensions is None:
        return vectors
    if not 1 <= dimensions <= vectors.shape[1]:
        raise invalid(f"{param} must be from 1 to {vectors.shape[1]}, found {dimensions}", param)
    if not (np.linalg.norm(vectors[:, :dimensions], axis=1) > 1e-6).all():
        raise invalid(f"{param} {dimensions}: the first {dimensions} values of an embedding are zero; keep more", param)
    return cut(vectors, dimensions)


def as_base64(row: np.ndarray) -> str:
    """Little-endian float32 in base64, as OpenAI's client reads it."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


async def listed(vectors: np.ndarray) -> list[list[float]]:
    """Embeddings as lists of numbers."""
    return await aside(vectors.nbytes, vectors.tolist)
