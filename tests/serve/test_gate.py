"""The gate: tokens, names, limits and the queue, the same for every form of request."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.serve.conftest import Running, Start
from tests.serve.test_embeddings import message
from vitlens.errors import OptionError
from vitlens.serve.logs import JsonLines
from vitlens.serve.settings import Limits

TEXT = {"input": "a dog"}
FORMS: list[dict[str, Any]] = [
    {"json": TEXT},
    {"json": {"input": ["a", "b"]}},
    {"json": {"messages": [{"role": "user", "content": "a"}]}},
    {"files": [("text", (None, "a dog"))]},
]


def test_a_token_is_wanted_everywhere_but_where_life_is_told(start: Start) -> None:
    running = start(tokens=frozenset({"secret", "other"}))
    good = {"authorization": "Bearer secret"}
    for given in ({}, {"authorization": "Bearer secrets"}, {"authorization": "secret"}, {"authorization": "Basic secret"}):
        reply = running.post("/v1/embeddings", json=TEXT, headers=given)
        assert "Authorization: Bearer" in message(reply, 401)
        assert reply.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing"):
        assert running.get(path).status_code == 401
    assert running.post("/v1/embeddings", json=TEXT, headers=good).status_code == 200
    assert running.post("/v1/embeddings", json=TEXT, headers={"authorization": "bearer other"}).status_code == 200
    for path in ("/healthz", "/healthz/live", "/healthz/ready"):
        assert running.get(path).status_code == 200


def test_pages_of_other_origins_are_kept_out(start: Start) -> None:
    running = start(names=("localhost",), origins=("https://lab.example.org",))
    foreign = {"origin": "https://evil.example.org"}
    assert "evil.example.org" in message(running.post("/v1/embeddings", json=TEXT, headers=foreign), 403)
    assert message(running.post("/v1/embeddings", json=TEXT, headers={"origin": "null"}), 403)
    assert running.post("/v1/embeddings", json=TEXT, headers={"origin": "http://localhost"}).status_code == 200
    allowed = running.post("/v1/embeddings", json=TEXT, headers={"origin": "https://lab.example.org"})
    assert allowed.headers["access-control-allow-origin"] == "https://lab.example.org"
    assert "access-control-allow-origin" not in running.get("/healthz", headers=foreign).headers
    assert "rebound.example.org" in message(running.get("/healthz", headers={"host": "rebound.example.org"}), 421)


def test_no_origin_is_allowed_unless_it_is_named(service: Running) -> None:
    assert "access-control-allow-origin" not in service.get("/v1/models", headers={"origin": "http://localhost"}).headers


def test_limits_are_named_in_the_413(start: Start) -> None:
    limits = Limits(file_bytes=3000, request_bytes=10_000, queue_bytes=50_000, items=3)
    running = start("text", "image", limits=limits)
    large = "data:image/png;base64," + base64.b64encode(bytes(4000)).decode()
    for form in (
        {"json": {"input": large, "modality": "image"}},
        {"json": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": large}}]}]}},
        {"files": {"image": ("a.png", bytes(4000))}},
        {"files": {"file": ("a.png", bytes(4000))}},
    ):
        assert "--max-file-mb" in message(running.post("/v1/embeddings", **form), 413)
    assert "--max-request-mb" in message(running.post("/v1/embeddings", json={"input": "a" * 20_000}), 413)
    assert "--max-items" in message(running.post("/v1/embeddings", json={"input": list("abcd")}), 413)
    parts = [{"type": "text", "text": "a"}] * 2
    assert "--max-items" in message(running.post("/v1/embeddings", json={"input": [parts, parts]}), 413)
    assert "--max-items" in message(
        running.post("/v1/classify", json={"input": "a", "labels": ["a", "b"], "templates": ["{}", "a {}"]}), 413
    )


def test_a_body_of_unknown_length_is_counted(start: Start) -> None:
    running = start(limits=Limits(file_bytes=1000, request_bytes=10_000))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    reply = running.post("/v1/embeddings", content=pieces(), headers={"content-type": "application/json"})
    assert "--max-request-mb" in message(reply, 413)


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(OptionError, match="must fit into a request"):
        Limits(file_bytes=10, request_bytes=5)
    with pytest.raises(OptionError, match="queue"):
        Limits(queue=0)


class Held:
    """A model that computes only once it is let go."""

    def __init__(self, model: Any) -> None:
        self._model, self.go, self.asked = model, threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed(self, modality: str, batch: list[Any], dtype: Any = None) -> Any:
        self.asked.set()
        assert self.go.wait(60)
        self.sizes.append(len(batch))
        return self._model.embed(modality, batch, dtype)


@pytest.mark.parametrize("form", FORMS)
def test_over_the_queue_every_form_gets_the_same_429(start: Start, form: dict[str, Any]) -> None:
    running = start(limits=Limits(queue=3), wrap=Held)
    held: Any = running.service.model

    async def crowd() -> list[Any]:
        waiting = [asyncio.ensure_future(running.client.post("/v1/embeddings", json=TEXT)) for _ in range(3)]
        await asyncio.to_thread(held.asked.wait, 60)
        await asyncio.sleep(0.05)
        refused = await running.client.post("/v1/embeddings", **form)
        health = await running.client.get("/healthz")
        held.go.set()
        return [refused, health, *await asyncio.gather(*waiting)]

    refused, health, *waited = running.run(crowd())
    assert "--queue" in message(refused, 429)
    assert refused.json()["error"]["type"] == "rate_limit_error" and int(refused.headers["retry-after"]) >= 1
    assert health.status_code == 200 and [one.status_code for one in waited] == [200, 200, 200]
    assert running.post("/v1/embeddings", **form).status_code == 200


def test_what_comes_while_the_model_computes_is_one_batch(start: Start) -> None:
    running = start(wrap=Held, batch_size=8)
    held: Any = running.service.model

    async def crowd() -> list[Any]:
        first = asyncio.ensure_future(running.client.post("/v1/embeddings", json=TEXT))
        await asyncio.to_thread(held.asked.wait, 60)
        others = [asyncio.ensure_future(running.client.post("/v1/embeddings", json={"input": f"dog {n}"})) for n in range(12)]
        while running.service.batcher.waiting < 12:
            await asyncio.sleep(0.01)
        held.go.set()
        return list(await asyncio.gather(first, *others))

    assert all(reply.status_code == 200 for reply in running.run(crowd()))
    assert held.sizes == [1, 8, 4]


class Choking:
    """A model that fails on batches in which one item is a certain text's."""

    def __init__(self, model: Any) -> None:
        self._model = model
        sensor = model.modality("text")
        self.poison = sensor.transform(sensor.load("poison"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed(self, modality: str, batch: list[Any], dtype: Any = None) -> Any:
        if any(bool((item == self.poison).all()) for item in batch):
            raise RuntimeError("a secret of the inner workings")
        return self._model.embed(modality, batch, dtype)


def test_an_item_that_the_model_fails_on_costs_its_request_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = start(wrap=Choking)

    async def crowd() -> list[Any]:
        texts = ["a", "poison", "b", "c"]
        return list(await asyncio.gather(*(running.client.post("/v1/embeddings", json={"input": text}) for text in texts)))

    with caplog.at_level(logging.INFO, logger="vitlens"):
        replies = running.run(crowd())
    assert [reply.status_code for reply in replies] == [200, 500, 200, 200]
    said = message(replies[1], 500)
    assert "secret" not in replies[1].text and "Traceback" not in replies[1].text and "X-Request-ID" in said
    [logged] = [record for record in caplog.records if record.exc_info]
    assert logged.told["request_id"] == replies[1].headers["x-request-id"]  # type: ignore[attr-defined]


def test_request_ids_are_echoed_and_logged_as_json(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="vitlens"):
        reply = service.post("/v1/embeddings", json={"input": ["a", "b"]}, headers={"x-request-id": "mine-1"})
        other = service.post("/v1/embeddings", json=TEXT, headers={"x-request-id": "two\twords"})
    assert reply.headers["x-request-id"] == "mine-1" and len(other.headers["x-request-id"]) == 32
    line = json.loads(JsonLines().format(next(record for record in caplog.records if record.getMessage() == "request")))
    assert line["request_id"] == "mine-1" and line["items"] == {"text": 2} and line["status"] == 200 and line["seconds"] > 0


def test_metrics_have_the_names_that_dashboards_know(start: Start) -> None:
    running = start()
    running.post("/v1/embeddings", json={"input": ["a", "b"]})
    running.post("/v1/embeddings", json={"input": [1]})
    page = running.get("/metrics").text
    for prefix in ("te_", "vitlens_"):
        assert f'{prefix}request_count{{method="/v1/embeddings",modality="text"}} 1.0' in page
        assert f'{prefix}request_success{{method="/v1/embeddings",modality="text"}} 1.0' in page
        assert f'{prefix}request_failure{{err="invalid_value",method="/v1/embeddings"}} 1.0' in page
        assert f'{prefix}item_count{{modality="text"}} 2.0' in page
        assert f"{prefix}queue_size 0.0" in page
        for name in ("request_duration", "request_queue_duration", "request_inference_duration", "batch_next_size"):
            assert f"{prefix}{name}_count" in page and f"{prefix}{name}_bucket" in page
    running.post("/made/up/path")
    assert "made" not in running.get("/metrics").text


def test_alive_before_it_is_ready_and_requests_wait() -> None:
    from tests.serve.conftest import MODEL, tiny
    from vitlens.serve.service import Service
    from vitlens.serve.settings import Settings

    go = threading.Event()

    def load() -> Any:
        assert go.wait(60)
        return tiny("text")

    running = Running(Service(Settings(model=MODEL), load=load), wait=False)
    try:
        assert running.get("/healthz").json() == {"alive": True, "ready": False, "state": "starting"}
        assert running.get("/healthz/live").status_code == 200 and running.get("/healthz/ready").status_code == 503

        async def early() -> Any:
            waiting = asyncio.ensure_future(running.client.post("/v1/embeddings", json=TEXT))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            go.set()
            return await waiting

        assert running.run(early()).status_code == 200
        assert running.get("/healthz/ready").status_code == 200
    finally:
        go.set()
        running.close()
