"""The page at `/`: its files, what it is told of this service, the examples it offers, and what can be seen of an upload.

Everything it loads comes from here, and its policy forbids the rest: no other host, no script or style within the document.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse

from vitlens.display.page import TEMPLATES
from vitlens.modality import modality_class
from vitlens.serve.bodies import items_of
from vitlens.serve.refusals import Refusal, invalid
from vitlens.serve.routes.common import INERT, REFUSALS, asked, ready_service, takes, visit_of
from vitlens.serve.schemas import PreviewReply, PreviewRequest
from vitlens.serve.service import Service
from vitlens.serve.settings import OPTIONS
from vitlens.store.items import Item

router = APIRouter(responses=REFUSALS)

_FOLDER = Path(__file__).parents[1] / "page"
_FILES = {path.name: path for path in (*_FOLDER.iterdir(), TEMPLATES / "base.css") if path.is_file()}
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-cache",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(_FILES["index.html"], headers=_HEADERS)


@router.get("/static/{name}", include_in_schema=False)
async def part_of_page(name: str) -> FileResponse:
    """A file that the page loads."""
    if name not in _FILES:
        raise Refusal(404, f"the page has no file {name[:80]!r}", code="not_found")
    return FileResponse(_FILES[name], headers=_HEADERS, media_type=_KINDS[_FILES[name].suffix])


@router.get("/v1/page")
async def about(request: Request) -> dict[str, Any]:
    """What the page has to know beside /v1/models: limits with the options that set them, what can be asked, the examples."""
    service = await ready_service(request)
    limits = {name: {"value": getattr(service.limits, name), "option": OPTIONS[name]} for name in ("file_bytes", "request_bytes")}
    has: dict[str, Any] = {"index": service.index is not None, "scene": service.scene is not None}
    has["chat"] = list(service.chat.streams) if service.chat is not None else []
    return {"model": service.name, "limits": limits, **has, "examples": [_example(item) for item in _examples(service)]}


@router.get("/v1/examples/{number}/{part}")
async def example_file(request: Request, number: int, part: int) -> FileResponse:
    """A file of an example: 0 the file itself, from 1 on those that belong to it."""
    files = _files(_at(_examples(await ready_service(request)), number))
    path = _at(files, part)
    if not path.is_file():
        raise Refusal(404, f"the example {path.name!r} is gone", code="not_found")
    return FileResponse(path, headers=INERT)


@router.post("/v1/preview", openapi_extra=takes(PreviewRequest), responses={200: {"model": PreviewReply}})
async def preview(request: Request) -> JSONResponse:
    """What a file is, how it looks, and what the model gets of it: `vitlens info` for one upload."""
    service, body = await asked(request, PreviewRequest)
    items = await items_of(request, body, service.grammar)
    if len(items) != 1 or len(items[0]) != 1:
        raise invalid(f"one thing is shown at a time, found {sum(map(len, items))}", "input")
    found = await service.preview(items[0][0], dark=body.dark)
    visit_of(request).modalities[found["modality"]] += 1
    picture = found.get("picture")
    shown = {"picture": base64.b64encode(picture).decode()} if picture else {}
    explored = {name: _plain(value) for name, value in found.get("explore", {}).items()}
    return JSONResponse({**found, **shown, "explore": explored})


def _plain(value: Any) -> Any:
    """An array as its kind of number, shape and base64; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    data = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": base64.b64encode(data.tobytes()).decode()}


def _examples(service: Service) -> list[Item]:
    """Those of the model's sensors."""
    return [item for item in service.settings.examples if item.modality in service.grammar.modalities]


def _example(item: Item) -> dict[str, Any]:
    told = {"modality": item.modality, "options": dict(item.options)}
    if not isinstance(item.source, Path):
        return {"text": item.source, **told}
    return {"files": [path.name for path in _files(item)], **told}


def _files(item: Item) -> list[Path]:
    if not isinstance(item.source, Path):
        return []
    return [item.source, *modality_class(item.modality)().companions(item.source)]


def _at(found: Sequence[Any], number: int) -> Any:
    if not 0 <= number < len(found):
        raise Refusal(404, f"no example {number}", code="not_found")
    return found[number]
