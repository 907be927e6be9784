"""/v1/search and /v1/scene: what an index or a scene holds, asked by any sense, by words, or by a weighted mixture."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, JSONResponse

from vitlens.serve.bodies import items_of, read_body
from vitlens.serve.refusals import Refusal, invalid, too_large
from vitlens.serve.routes.common import INERT, REFUSALS, as_base64, embedded, ready_service, remarks_of, takes, visit_of
from vitlens.serve.schemas import SceneReply, SceneRequest, SearchReply, SearchRequest

router = APIRouter(responses=REFUSALS)


@router.post("/v1/search", openapi_extra=takes(SearchRequest), responses={200: {"model": SearchReply}})
async def search(request: Request) -> JSONResponse:
    """What of the index fits each item best."""
    from vitlens.index import Term

    service = await ready_service(request)
    index = _there(service.index, "index", "--index")
    body = await read_body(request, SearchRequest, service.grammar)
    service.check_model(body.model)
    if body.k > service.limits.items:
        raise too_large("k", f"{body.k} hits", "items", service.limits, "k")
    items = await items_of(request, body, service.grammar)
    found = await service.parts(items)
    visit_of(request).modalities.update(one.modality for ones in found for one in ones)
    data: list[dict[str, Any]] = []
    for item, ones in zip(items, found, strict=True):
        terms = [Term(one.row, one.modality, given.weight, given.where) for given, one in zip(item, ones, strict=True)]
        wanted: dict[str, Any] = {"k": body.k, "where": body.where, "modalities": body.modalities}
        wanted |= {"calibrate": body.calibrate, "exact": body.exact}
        answer = await asyncio.to_thread(index.search, terms, service.model.space, **wanted)
        data.append({"index": len(data), **_public(answer.to_dict())})
    remarks = [{"index": n, "text": text} for n, ones in enumerate(found) for one in ones for text in one.remarks]
    said = {"remarks": remarks} if remarks else {}
    return JSONResponse({"object": "list", "data": data, "model": service.name, **said})


def _public(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the places of files on this machine; `has_file` says that /v1/search/file gives one."""
    for hit in answer["hits"]:
        hit["has_file"] = hit.pop("file") is not None
    return answer


@router.get("/v1/search/file")
async def hit_file(request: Request, key: str) -> FileResponse:
    """The file of a hit, by the hit's key: for who shows what was found."""
    service = await ready_service(request)
    index = _there(service.index, "index", "--index")
    row = await asyncio.to_thread(index.row, key)
    if row is None or row["file"] is None or not await asyncio.to_thread(_is_file, row["file"]):
        raise Refusal(404, f"no file for the key {key[:80]!r}: another index, or the file is gone", code="not_found", param="key")
    return FileResponse(row["file"], headers=INERT)


@router.post("/v1/scene", openapi_extra=takes(SceneRequest), responses={200: {"model": SceneReply}})
async def ask_scene(request: Request) -> JSONResponse:
    """Where in the scene the item is: points and boxes in metres, and the frames that show them."""
    from vitlens.scene.search import find

    service = await ready_service(request)
    scene = _there(service.scene, "scene", "--scene")
    body = await read_body(request, SceneRequest, service.grammar)
    service.check_model(body.model)
    items = await items_of(request, body, service.grammar)
    if len(items) != 1:
        raise invalid(f"a scene is asked one thing at a time, found {len(items)} items; a list of parts is a mixture", "input")
    found = await embedded(request, service, items)
    space = service.model.space
    answer = await asyncio.to_thread(find, scene, found.vectors[0], space, most=body.places, share=body.share)
    reply: dict[str, Any] = {"places": [place.to_dict() for place in answer.places], "model": service.name}
    reply |= {"heat": as_base64(answer.heat)} if body.heat else {}
    return JSONResponse({**reply, **remarks_of(found)})


@router.get("/v1/scene")
async def scene_card(request: Request) -> JSONResponse:
    """The scene: its voxels (base64 of float32 [n, 3] metres and uint8 [n, 3] colours), up axis, and frames by name."""
    service = await ready_service(request)
    scene = _there(service.scene, "scene", "--scene")
    return JSONResponse(await asyncio.to_thread(_card, scene))


@router.get("/v1/scene/frame")
async def scene_frame(request: Request, name: str) -> FileResponse:
    """The picture of a frame, by its name."""
    service = await ready_service(request)
    frames = _there(service.scene, "scene", "--scene").frames
    names = list(frames.names)
    if name not in names or not await asyncio.to_thread(_is_file, frames.colour[names.index(name)]):
        raise Refusal(404, f"no picture of a frame {name[:80]!r}", code="not_found", param="name")
    return FileResponse(frames.colour[names.index(name)], headers=INERT)


def _card(scene: Any) -> dict[str, Any]:
    import base64

    import numpy as np

    voxels = scene.voxels
    colours = np.ascontiguousarray(voxels.colours, np.uint8)
    return {
        "model": scene.model,
        "voxels": len(voxels),
        "voxel_size": voxels.size,
        "points": as_base64(np.asarray(voxels.points)),
        "colours": base64.b64encode(colours.tobytes()).decode(),
        "up": [float(value) for value in scene.up],
        "frames": list(scene.frames.names),
    }


def _is_file(path: Any) -> bool:
    from pathlib import Path

    return Path(path).is_file()


def _there(collection: Any, what: str, option: str) -> Any:
    if collection is None:
        raise Refusal(404, f"this service has no {what}: start it with {option} PATH", code=f"no_{what}")
    return collection
