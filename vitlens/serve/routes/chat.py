"""/v1/chat/completions: a question about files of any sensor, for a language model that was plugged in with --host-model."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from vitlens.errors import VitlensError
from vitlens.serve.bodies import items_of, read_body
from vitlens.serve.content import Grammar
from vitlens.serve.given import File, Given
from vitlens.serve.refusals import Refusal, invalid, refusal_of
from vitlens.serve.routes.common import REFUSALS, ready_service, takes, visit_of
from vitlens.serve.schemas import ChatRequest
from vitlens.serve.service import Service

router = APIRouter(responses=REFUSALS)


@router.post("/v1/chat/completions", openapi_extra=takes(ChatRequest))
async def completions(request: Request) -> JSONResponse:
    """The answer to one question; several files of one sensor are answered one by one, each a choice."""
    service = await ready_service(request)
    if service.chat is None:
        raise Refusal(404, "this service has no language model: start it with --host-model HOST", code="no_chat")
    grammar = Grammar([*dict.fromkeys([*service.chat.streams, "text"])], service.grammar.width, service.limits)
    body = await read_body(request, ChatRequest, grammar)
    if body.stream:
        raise invalid("stream: answers come whole here; send stream false, or leave it out", "stream")
    given = await _things(request, service, body, grammar)
    texts = [one.content for one in given if isinstance(one.content, str)]
    question = "\n".join([*([body.question] if body.question else []), *texts])
    files = [one for one in given if isinstance(one.content, File)]
    if not question or not files:
        raise invalid("a question in words and at least one file are needed", "messages")
    visit_of(request).modalities.update(one.modality for one in files)
    for one in files:  # read in a process of its own first: a file that crashes its reader must not meet the language model
        if one.modality in service.readers.sensors:
            try:
                await service.readers.read(one)
            except VitlensError as error:
                raise refusal_of(error, one.where) from error
    options = {"max_new_tokens": body.max_tokens} if body.max_tokens else {}
    loop = asyncio.get_running_loop()
    answers = await loop.run_in_executor(service.chat_thread, _answer, service, question, files, options)
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate(answers)
    ]
    about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": service.created}
    return JSONResponse({**about, "model": body.model or service.name, "choices": choices})


async def _things(request: Request, service: Service, body: ChatRequest, grammar: Grammar) -> list[Given]:
    """Texts and files of the one conversation, addresses fetched, each of a known sensor."""
    items = await items_of(request, body, grammar)
    if body.messages is not None and len(items) != 1:
        raise invalid("one conversation at a time", "messages")
    things = [await service.fetched(one) for item in items for one in item]
    for one in things:
        if not isinstance(one.content, str | File) or not one.modality:
            raise invalid(f"{one.where}: say which sensor the file is of, by its part's type or its field's name", one.where)
    return things


def _answer(service: Service, question: str, files: list[Given], options: dict[str, Any]) -> list[str]:
    assert service.chat is not None
    with ExitStack() as stack:
        named: dict[str, list[str]] = {}
        read: dict[str, dict[str, Any]] = {}
        for one in files:
            path, _ = stack.enter_context(service.readers.laid_out(one))
            named.setdefault(one.modality, []).append(str(path))
            if read.setdefault(one.modality, dict(one.options)) != dict(one.options):
                raise invalid(f"{one.where}: files of one sensor in one question are read with the same options", one.where)
        return service.chat.answer(question, named, {name: values for name, values in read.items() if values}, **options)
