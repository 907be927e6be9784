"""Bodies of requests: JSON or a form with files becomes one of `schemas`, whatever is wrong with it one sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vitlens.modality import modality_class
from vitlens.serve.content import Grammar, Item
from vitlens.serve.given import File, Given, check_size
from vitlens.serve.refusals import Refusal, invalid, too_large
from vitlens.serve.schemas import Inputs

B = TypeVar("B", bound=BaseModel)
P = ParamSpec("P")
T = TypeVar("T")
QUICK = 200_000
"""Bytes of a body that are worked on without a thread of their own: the others wait meanwhile."""
JSON, FORM = "application/json", "multipart/form-data"
BESIDE = 64
"""Files that may lie beside those to embed."""


class InMemory(MultiPartParser):
    """Forms whose files stay in memory, where they are wanted next.

    Without this a file above 1 MB goes through the disk, with a change of thread for every chunk.
    """

    spool_max_size = 0


async def read_body(request: Request, kind: type[B], grammar: Grammar) -> B:
    """The request's body as `kind`.

    Raises:
        Refusal: neither JSON nor a form, or not what `kind` asks for.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given == JSON:
        content = await request.body()
        return await aside(len(content), _from_json, content, kind)
    if given == FORM:
        return await _from_form(request, kind, grammar)
    message = f"a body of type {given or '(none)'}; send Content-Type: {JSON}, or {FORM} with files"
    raise Refusal(415, message, code="unsupported_type")


async def aside(size: int, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """`work` on so many bytes, in a thread where it takes long."""
    if size <= QUICK:
        return work(*args, **options)
    return await asyncio.to_thread(work, *args, **options)


async def items_of(request: Request, body: Inputs, grammar: Grammar) -> list[Item]:
    """The items that a request names in `input` or in `messages`."""
    if (body.input is None) == (body.messages is None):
        found = "neither" if body.input is None else "both"
        raise invalid(f"give what is to be embedded in input or in messages; found {found}", "input")
    size = request.scope["vitlens.visit"].received
    if body.messages is not None:
        return await aside(size, grammar.conversations, body.messages)
    return await aside(size, grammar.items, body.input, "input", body.modality)


def _from_json(content: bytes, kind: type[B]) -> B:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise _said(error, kind) from error


def _said(error: ValidationError, kind: type[BaseModel]) -> Refusal:
    """The first thing that is wrong, in a sentence."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "body"
    if first["type"] == "extra_forbidden":
        known = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        return invalid(f"unknown field {where!r}; known: {known}", where, code="unknown_field")
    if first["type"] == "missing":
        return invalid(f"{where} is missing", where, code="missing_field")
    if first["type"] in ("json_invalid", "model_type"):
        return invalid(f"the body is no JSON object: {first['msg']}", code="invalid_json")
    return invalid(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}, found {first['input']!r:.60}", where)


async def _from_form(request: Request, kind: type[B], grammar: Grammar) -> B:
    """A form: files under `file` or a modality's name, texts under `text`, read options as `audio.rate`, other fields by name.

    Files that another one names (a recording's data beside its header) come under `beside`. What begins with `with.` is the
    other side of a comparison.
    """
    limits = grammar.limits
    counts = {"max_files": limits.items + BESIDE, "max_fields": 4 * limits.items}
    try:
        form = await InMemory(request.headers, request.stream(), **counts, max_part_size=limits.file_bytes).parse()
    except MultiPartException as error:
        raise invalid(f"the form cannot be read: {error.message}", code="invalid_form") from error
    sides: dict[str, list[tuple[str, Any]]] = {"input": [], "with": []}
    values: dict[str, Any] = {}
    options: dict[str, dict[str, str]] = {}
    beside: list[File] = []
    for key, value in form.multi_items():
        side, name = ("with", key[5:]) if key.startswith("with.") else ("input", key)
        modality, dot, option = name.partition(".")
        if name == "beside":
            beside.append(await _file(value, name, grammar))
        elif name == "file" or (name in grammar.modalities and not dot):
            sides[side].append((name, await _file(value, name, grammar) if isinstance(value, UploadFile) else value))
        elif dot and modality in grammar.modalities:
            options.setdefault(modality, {})[option] = str(value)
        elif isinstance(value, UploadFile):
            known = ", ".join(("file", "beside", *grammar.modalities))
            raise invalid(f"a file in the field {name!r}; files come in: {known}", name, code="unknown_field")
        else:
            values[key] = [*values[key], value] if isinstance(values.get(key), list) else _value(kind, key, value)
    if len(beside) > BESIDE:
        raise too_large("beside", f"{len(beside)} files", "items", limits, "beside")
    for side, found in sides.items():
        if found:
            places = [f"{side}[{place}]" for place in range(len(found))]
            values[side] = [
                _given(name, value, place, options, beside, grammar) for (name, value), place in zip(found, places, strict=True)
            ]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _said(error, kind) from error


def _given(
    name: str, value: Any, where: str, options: dict[str, dict[str, str]], beside: list[File], grammar: Grammar
) -> Given | list[Given]:
    if not isinstance(value, File):
        if name == "file":
            raise invalid(f"{where}: the field 'file' holds a text; send a file (curl: -F file=@NAME)", where)
        return grammar.item(value, where, name)[0]
    modality = "" if name == "file" else name
    if modality and modality_class(modality).tower == "text":
        try:
            return grammar.item(value.content.decode("utf-8-sig"), where)[0]
        except UnicodeDecodeError as error:
            raise invalid(f"{where} ({value.name}): not UTF-8 (byte {error.start})", where, code="unreadable_input") from error
    checked = {key: grammar.read_options(key, given, where) for key, given in options.items()}
    return Given(modality, where, value, checked.get(modality, {}) if modality else checked, tuple(beside))


def _value(kind: type[BaseModel], key: str, value: str) -> Any:
    """A field of a form as its schema wants it: lists as JSON, or one of a repeated field; all else as text."""
    field = kind.model_fields.get(key)
    if field is None or "list" not in str(field.annotation):
        return value
    if value.startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise invalid(f"{key}: not a JSON list ({error}); repeat the field instead", key) from error
    return [value]


async def _file(value: Any, name: str, grammar: Grammar) -> File:
    if not isinstance(value, UploadFile):
        raise invalid(f"the field {name!r} holds a text; send a file (curl: -F {name}=@NAME)", name)
    check_size(value.size or 0, f"{name} ({value.filename})", grammar.limits)
    content = await value.read()
    await value.close()
    if not content:
        raise invalid(f"{name} ({value.filename}): an empty file", name, code="unreadable_input")
    return File(content, value.filename or "", (value.content_type or "").lower())
