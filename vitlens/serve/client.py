"""A client of `vitlens serve`: things in, arrays out; it tries again where that may help.

    with Client("http://127.0.0.1:8000") as client:
        rows = client.embed([File("dog.wav"), "a dog barks", Mixture(File("chair.ply"), Weighted("wood", 0.5))])
        best = client.classify([File("knock.wav")], ["wood", "metal"])

`AsyncClient` has the same methods as coroutines. Needs httpx and numpy, neither torch nor a model.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np

from vitlens.errors import InputError, VitlensError
from vitlens.modality import guess_modality

AGAIN = {429, 502, 503, 504}
"""Answers after which the same request may be answered a moment later."""
LONGEST = 60.0
"""Seconds between two tries, at most."""


class ServeError(VitlensError):
    """The service refused a request: its sentence, and the `status`, `code` and `param` that programs go by."""

    def __init__(self, message: str, *, status: int, code: str = "", param: str | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.request_id = status, code, param, request_id


class File:
    """A sensor's file to be sent: a path or bytes, its modality (None: guessed from the path), and read options."""

    def __init__(
        self, source: str | os.PathLike[str] | bytes, modality: str | None = None, *, format: str = "", **options: Any
    ) -> None:
        if isinstance(source, bytes):
            if modality is None:
                raise InputError(f"<{len(source)} bytes>", "no modality", "File(content, 'audio')")
            self.content, self.name = source, ""
        else:
            modality = modality or guess_modality(os.fspath(source))
            self.content, self.name = Path(source).read_bytes(), Path(source).name
            format = format or Path(source).suffix.lstrip(".")
        self.modality, self.format, self.options = modality, format, options

    def part(self) -> dict[str, Any]:
        """The content part of a request."""
        key = f"input_{self.modality}"
        said = {"format": self.format} if self.format else {}
        return {"type": key, key: {"data": base64.b64encode(self.content).decode(), **said, **self.options}}


@dataclass(frozen=True)
class Weighted:
    """A part of a mixture with its weight; below 0 it leads away."""

    item: Thing
    weight: float

    def part(self) -> dict[str, Any]:
        """The content part of a request."""
        return {**_part(self.item), "weight": self.weight}


class Mixture:
    """Things whose embeddings are added, by weight, and made of length 1."""

    def __init__(self, *items: Thing | Weighted) -> None:
        self.items = items

    def parts(self) -> list[dict[str, Any]]:
        """The content parts of a request."""
        return [item.part() if isinstance(item, Weighted) else _part(item) for item in self.items]


Thing = str | File | np.ndarray
"""A text, a file, or an embedding [E] that is there already."""
Item = Thing | Mixture


def _part(item: Thing) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    if isinstance(item, File):
        return item.part()
    return {"type": "embedding", "embedding": base64.b64encode(np.asarray(item, "<f4").tobytes()).decode()}


def _input(items: Sequence[Item]) -> list[Any]:
    if isinstance(items, str | bytes | File | Mixture):
        raise InputError(repr(items)[:60], "one item", "a list of items")
    return [item.parts() if isinstance(item, Mixture) else _part(item) for item in items]


class _Base:
    """What both clients do: requests and what becomes of the answers."""

    def __init__(self, address: str, token: str | None, retries: int, timeout: float) -> None:
        self.retries = retries
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._settings: dict[str, Any] = {"base_url": address, "headers": headers, "timeout": timeout}

    def _waits(self) -> Iterator[float]:
        """Seconds before each further try: doubled each time, not the same for all clients."""
        yield from (min(0.5 * 2**attempt, LONGEST) * random.uniform(0.5, 1.5) for attempt in range(self.retries))

    def _may_change(self, response: httpx.Response) -> bool:
        """Whether the same request may be answered a moment later: also after a 500 that a proxy gave, not the service."""
        ours = response.headers.get("content-type", "").startswith("application/json")
        return response.status_code in AGAIN or (response.status_code == 500 and not ours)

    def _wait(self, response: httpx.Response, usual: float) -> float:
        said = response.headers.get("retry-after", "")
        return min(max(float(said), usual), LONGEST) if said.isdigit() else usual

    def _answer(self, response: httpx.Response) -> Any:
        if response.is_success:
            return response.json()
        try:
            problem = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            problem = {"message": f"{response.url} answers {response.status_code}"}
        known = {key: problem.get(key) for key in ("code", "param")}
        number = response.headers.get("x-request-id", "")
        raise ServeError(problem["message"], status=response.status_code, request_id=number, **known)


def _rows(answer: Any) -> np.ndarray:
    rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
    return np.stack(rows).astype(np.float32)


def _embed_body(items: Sequence[Item], dimensions: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"input": _input(items), "encoding_format": "base64"}
    return body | ({"dimensions": dimensions} if dimensions else {})


def _classify_body(items: Sequence[Item], labels: Sequence[str], templates: Sequence[str] | None, top: int) -> dict[str, Any]:
    body = {"input": _input(items), "labels": list(labels), "top": top}
    return body | ({"templates": list(templates)} if templates else {})


def _labels(answer: Any) -> list[list[tuple[str, float]]]:
    return [[(one["label"], one["probability"]) for one in found["labels"]] for found in answer["data"]]


def _similarity_body(items: Sequence[Item], others: Sequence[Item] | None) -> dict[str, Any]:
    return {"input": _input(items)} | ({"with": _input(others)} if others is not None else {})


class Client(_Base):
    """A client that waits for each answer. `retries` are further tries after 429, 502 to 504 and broken connections.

    `options` are httpx's own (verify, proxy, transport ...).
    """

    def __init__(
        self, address: str, *, token: str | None = None, retries: int = 5, timeout: float = 300.0, **options: Any
    ) -> None:
        super().__init__(address, token, retries, timeout)
        self._http = httpx.Client(**self._settings, **options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Any request's answer as JSON types.

        Raises:
            ServeError: it was refused, also after all tries.
            httpx.TransportError: no connection, also after all tries.
        """
        for usual in [*self._waits(), None]:
            try:
                response = self._http.request(method, path, json=body)
            except httpx.TransportError:
                if usual is None:
                    raise
                time.sleep(usual)
                continue
            if usual is None or not self._may_change(response):
                break
            time.sleep(self._wait(response, usual))
        return self._answer(response)

    def embed(self, items: Sequence[Item], *, dimensions: int | None = None) -> np.ndarray:
        """Embeddings float32 [n, E] of length 1, in order."""
        return _rows(self.request("POST", "/v1/embeddings", _embed_body(items, dimensions)))

    def classify(
        self, items: Sequence[Item], labels: Sequence[str], *, templates: Sequence[str] | None = None, top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Per item its best labels with their probabilities, best first."""
        return _labels(self.request("POST", "/v1/classify", _classify_body(items, labels, templates, top)))

    def similarity(self, items: Sequence[Item], others: Sequence[Item] | None = None) -> np.ndarray:
        """Cosines [n, m] of items with others, or with each other."""
        return np.array(self.request("POST", "/v1/similarity", _similarity_body(items, others))["cosines"])

    def search(self, items: Sequence[Item], **options: Any) -> list[dict[str, Any]]:
        """Per item what the service's index finds; `options` are k, where, modalities, calibrate, exact."""
        return list(self.request("POST", "/v1/search", {"input": _input(items), **options})["data"])

    def scene(self, item: Item, **options: Any) -> list[dict[str, Any]]:
        """Where in the service's scene an item is; `options` are places and share."""
        return list(self.request("POST", "/v1/scene", {"input": _input([item]), **options})["places"])

    def models(self) -> list[dict[str, Any]]:
        """What is served, and what each sensor reads."""
        return list(self.request("GET", "/v1/models")["data"])


class AsyncClient(_Base):
    """`Client` with coroutines."""

    def __init__(
        self, address: str, *, token: str | None = None, retries: int = 5, timeout: float = 300.0, **options: Any
    ) -> None:
        super().__init__(address, token, retries, timeout)
        self._http = httpx.AsyncClient(**self._settings, **options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """As `Client.request`."""
        for usual in [*self._waits(), None]:
            try:
                response = await self._http.request(method, path, json=body)
            except httpx.TransportError:
                if usual is None:
                    raise
                await asyncio.sleep(usual)
                continue
            if usual is None or not self._may_change(response):
                break
            await asyncio.sleep(self._wait(response, usual))
        return self._answer(response)

    async def embed(self, items: Sequence[Item], *, dimensions: int | None = None) -> np.ndarray:
        """As `Client.embed`."""
        return _rows(await self.request("POST", "/v1/embeddings", _embed_body(items, dimensions)))

    async def classify(
        self, items: Sequence[Item], labels: Sequence[str], *, templates: Sequence[str] | None = None, top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """As `Client.classify`."""
        return _labels(await self.request("POST", "/v1/classify", _classify_body(items, labels, templates, top)))

    async def similarity(self, items: Sequence[Item], others: Sequence[Item] | None = None) -> np.ndarray:
        """As `Client.similarity`."""
        return np.array((await self.request("POST", "/v1/similarity", _similarity_body(items, others)))["cosines"])

    async def search(self, items: Sequence[Item], **options: Any) -> list[dict[str, Any]]:
        """As `Client.search`."""
        return list((await self.request("POST", "/v1/search", {"input": _input(items), **options}))["data"])

    async def scene(self, item: Item, **options: Any) -> list[dict[str, Any]]:
        """As `Client.scene`."""
        return list((await self.request("POST", "/v1/scene", {"input": _input([item]), **options}))["places"])

    async def models(self) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return list((await self.request("GET", "/v1/models"))["data"])
