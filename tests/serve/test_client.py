"""Our client: what it sends is what it says, and it comes again when that may help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serve.conftest import Running
from tests.serve.test_embeddings import SENSORS, direct
from vitlens.errors import InputError
from vitlens.serve import AsyncClient, Client, File, Mixture, ServeError, Weighted


def asynchronous(service: Running) -> AsyncClient:
    return AsyncClient("http://localhost", retries=0, transport=httpx.ASGITransport(app=service.app))


def test_every_sensor_text_and_mixture(service: Running, files: dict[str, Path]) -> None:
    expected = np.concatenate([direct(service, name, files[name]) for name in SENSORS] + [direct(service, "text", "a dog")])

    async def ask() -> Any:
        async with asynchronous(service) as client:
            rows = await client.embed([*(File(files[name], name) for name in SENSORS), "a dog"])
            mixed = await client.embed([Mixture(File(files["audio"]), Weighted("a dog", -0.5)), rows[0]])
            best = await client.classify([File(files["audio"])], ["dog", "rain"], templates=["{}"], top=1)
            cosines = await client.similarity(["a dog", rows[1]], ["a dog"])
            return rows, mixed, best, cosines, await client.models(), await client.embed(["a"], dimensions=4)

    rows, mixed, best, cosines, models, short = service.run(ask())
    assert np.allclose(rows, expected, atol=1e-4)
    sound, words = expected[SENSORS.index("audio")], expected[-1]
    assert np.allclose(mixed[0], (sound - 0.5 * words) / np.linalg.norm(sound - 0.5 * words), atol=1e-4)
    assert np.allclose(mixed[1], expected[0], atol=1e-4)
    assert best[0][0][0] in ("dog", "rain") and 0 < best[0][0][1] <= 1
    assert np.allclose(cosines, [[1.0], [expected[1] @ words]], atol=1e-4)
    assert models[0]["dimensions"] == 64 and short.shape == (1, 4)


def test_a_refusal_is_an_error_with_the_service_s_sentence(service: Running) -> None:
    async def ask() -> None:
        async with asynchronous(service) as client:
            await client.embed([File(b"no picture", "image")])

    with pytest.raises(ServeError, match=r"input\[0\]: .* Accepted: a picture") as caught:
        service.run(ask())
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unreadable_input", "input[0]")
    assert len(caught.value.request_id) == 32


class Moody(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers as it was told to, one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers = answer
        if status == 500:  # of a proxy, whose service is gone
            return httpx.Response(500, text="Internal Server Error")
        content = {"data": []} if status == 200 else {"error": {"message": "busy", "code": "rate_limit_exceeded"}}
        return httpx.Response(status, headers=headers, json=content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept, without sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("vitlens.serve.client.time.sleep", slept.append)
    monkeypatch.setattr("vitlens.serve.client.asyncio.sleep", sleep)
    return slept


def test_it_comes_again_when_it_was_told_to(naps: list[float]) -> None:
    answers = ((429, {"Retry-After": "7"}), (500, {}), httpx.ConnectError("gone"), (200, {}))
    with Client("http://localhost", transport=Moody(*answers)) as client:
        assert client.models() == []
    assert naps[0] == 7 and 0 < naps[1] < 3 and len(naps) == 3


def test_it_gives_up_after_its_tries_and_at_once_where_it_is_no_use(naps: list[float]) -> None:
    with Client("http://localhost", retries=2, transport=Moody(*[(429, {})] * 3)) as client, pytest.raises(ServeError) as caught:
        client.models()
    assert caught.value.status == 429 and len(naps) == 2
    naps.clear()
    with Client("http://localhost", transport=Moody((400, {}))) as client, pytest.raises(ServeError, match="busy"):
        client.models()
    gone = Moody(*[httpx.ConnectError("gone")] * 2)
    with Client("http://localhost", retries=1, transport=gone) as client, pytest.raises(httpx.ConnectError):
        client.models()
    assert len(naps) == 1


def test_what_is_no_list_of_items_is_refused_before_it_is_sent() -> None:
    with Client("http://localhost", transport=Moody()) as client, pytest.raises(InputError, match="a list of items"):
        client.embed("a dog")
    with pytest.raises(InputError, match="no modality"):
        File(b"content")
