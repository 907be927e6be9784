"""/v1/classify and /v1/similarity: what one does with embeddings, without having to fetch them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vitlens.serve.bodies import aside, items_of
from vitlens.serve.refusals import invalid, too_large
from vitlens.serve.routes.common import REFUSALS, asked, embedded, listed, remarks_of, takes
from vitlens.serve.schemas import ClassifyReply, ClassifyRequest, SimilarityReply, SimilarityRequest

router = APIRouter(responses=REFUSALS)


@router.post("/v1/classify", openapi_extra=takes(ClassifyRequest), responses={200: {"model": ClassifyReply}})
async def classify(request: Request) -> JSONResponse:
    """Which of the given labels fits each item best (zero-shot)."""
    import torch

    from vitlens.zeroshot import classify_embeddings

    service, body = await asked(request, ClassifyRequest)
    if len(body.labels) * len(body.templates or [""]) > service.limits.items:
        raise too_large("labels", f"{len(body.labels)} labels with their templates", "items", service.limits, "labels")
    if "text" not in service.grammar.modalities:
        raise invalid(f"{service.name} has no text tower, which labels need", "labels", code="unknown_modality")
    items = await items_of(request, body, service.grammar)
    vectors = await service.class_vectors(body.labels, body.templates)
    found = await embedded(request, service, items)
    scale = float(service.model.logit_scale)
    classes = classify_embeddings(torch.from_numpy(found.vectors), body.labels, torch.from_numpy(vectors), logit_scale=scale)
    data = []
    for index, best in enumerate(classes.top(body.top)):
        cosines = dict(zip(classes.labels, classes.scores[index].tolist(), strict=True))
        labels = [{"label": label, "probability": value, "cosine": cosines[label]} for label, value in best]
        data.append({"index": index, "labels": labels})
    return JSONResponse({"object": "list", "data": data, "model": service.name, **remarks_of(found)})


@router.post("/v1/similarity", openapi_extra=takes(SimilarityRequest), responses={200: {"model": SimilarityReply}})
async def similarity(request: Request) -> JSONResponse:
    """Cosines of the items of `input` with those of `with`, or with each other."""
    service, body = await asked(request, SimilarityRequest)
    left = await items_of(request, body, service.grammar)
    right = []
    if body.other is not None:
        modality = body.with_modality or body.modality
        right = await aside(request.scope["vitlens.visit"].received, service.grammar.items, body.other, "with", modality)
    found = await embedded(request, service, [*left, *right])
    rows = found.vectors[: len(left)]
    columns = found.vectors[len(left) :] if right else rows
    cosines = await listed(rows @ columns.T)
    reply = {"model": service.name, "space": service.model.space.name, "cosines": cosines}
    return JSONResponse({**reply, **remarks_of(found)})
