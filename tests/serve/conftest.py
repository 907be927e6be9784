"""A service in this process, whose application is asked without a network; one for all tests that do not change it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import vitlens
from vitlens.serve.app import create_app
from vitlens.serve.fetch import Fetcher
from vitlens.serve.service import Service
from vitlens.serve.settings import Limits, Settings

MODEL = "vitlens-tiny-random"


class Running:
    """A service that runs in a thread's event loop, and an httpx client of it for tests that do not."""

    def __init__(self, service: Service, *, wait: bool = True) -> None:
        self.service = service
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.app = create_app(service)
        self._ended, self._begun = asyncio.Event(), threading.Event()
        self._life = asyncio.run_coroutine_threadsafe(self._live(), self.loop)
        assert self._begun.wait(60)
        if wait:
            self.run(service.ready())

    async def _live(self) -> None:
        async with self.app.router.lifespan_context(self.app):
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as self.client:
                self._begun.set()
                await self._ended.wait()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(180)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.run(self.client.post(path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.run(self.client.get(path, **options))

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._life.result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


Start = Callable[..., Running]


def tiny(*modalities: str) -> vitlens.ViTLens:
    return vitlens.load(MODEL, modalities=modalities or None, device="cpu")


@pytest.fixture(scope="session")
def service() -> Iterator[Running]:
    """A service of every sensor of a tiny model."""
    running = Running(Service(Settings(model=MODEL, device="cpu", readers=1)))
    yield running
    running.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start further services; by default of words alone, which need no process."""
    started: list[Running] = []

    def begin(
        *modalities: str, limits: Limits | None = None, fetcher: Fetcher | None = None, wrap: Any = None, **settings: Any
    ) -> Running:
        model = tiny(*(modalities or ("text",)))
        model = wrap(model) if wrap else model
        chosen = Settings(model=MODEL, limits=limits or Limits(), readers=1, **settings)
        started.append(Running(Service(chosen, load=lambda: model, fetcher=fetcher)))
        return started[-1]

    yield begin
    for running in started:
        running.close()


@pytest.fixture(scope="session")
def files(service: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A usual file of every sensor."""
    folder = tmp_path_factory.mktemp("files")
    sensors = {name: service.service.model.modality(name) for name in service.service.model.modalities}
    return {name: sensor.write(sensor.example(), folder, name) for name, sensor in sensors.items()}
