"""Batches across requests: what arrives while the model computes waits, and goes through it together next.

Nothing waits for a batch to fill: a lone request is computed at once, and the busier the service is, the larger batches become.
Items of one tower share a batch, whatever request or modality they are of (frames of a video go where pictures go).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vitlens.serve.metrics import Metrics

if TYPE_CHECKING:
    from torch import Tensor

Run = Callable[[str, list["Tensor"]], "Tensor"]
"""Modality and preprocessed items -> embeddings [b, E] on the CPU."""


@dataclass
class _Waiting:
    modality: str
    item: Tensor
    row: asyncio.Future[np.ndarray]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """One queue per tower in front of a model that one thread runs."""

    def __init__(self, run: Run, tower: Callable[[str], object], *, batch_size: int, metrics: Metrics) -> None:
        self._run, self._tower, self._batch_size, self._metrics = run, tower, batch_size, metrics
        self._queues: dict[int, deque[_Waiting]] = {}
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vitlens-model")
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return sum(len(queue) for queue in self._queues.values())

    async def embed(self, modality: str, item: Tensor) -> np.ndarray:
        """The embedding [E] of a preprocessed item, as soon as a batch had room for it."""
        waiting = _Waiting(modality, item, asyncio.get_running_loop().create_future())
        self._queues.setdefault(id(self._tower(modality)), deque()).append(waiting)
        self._metrics.queue_size.set(self.waiting)
        self._arrived.set()
        return await waiting.row

    async def close(self) -> None:
        """Compute what waits, and stop."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        while batch := await self._next():
            started = time.monotonic()
            for one in batch:
                self._metrics.queue_duration.labels(one.modality).observe(started - one.since)
            self._metrics.batch_size.labels(batch[0].modality).observe(len(batch))
            await self._compute(batch)
            for modality in {one.modality for one in batch}:
                self._metrics.inference_duration.labels(modality).observe(time.monotonic() - started)

    async def _next(self) -> list[_Waiting]:
        """The longest waiting item and others of its tower; empty when there will be no more."""
        while True:
            full = [queue for queue in self._queues.values() if queue]
            if full:
                queue = min(full, key=lambda queue: queue[0].since)
                batch = [queue.popleft() for _ in range(min(self._batch_size, len(queue)))]
                self._metrics.queue_size.set(self.waiting)
                if batch := [one for one in batch if not one.row.done()]:  # whoever gave up needs no answer
                    return batch
                continue
            if self._closing:
                return []
            self._arrived.clear()
            await self._arrived.wait()

    async def _compute(self, batch: list[_Waiting]) -> None:
        """Fill in the rows; where a batch fails, its items are tried one by one, so that one alone may fail."""
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._rows, batch)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._compute([one])
            elif not batch[0].row.done():
                batch[0].row.set_exception(error)
            return
        for one, row in zip(batch, rows, strict=True):
            if not one.row.done():
                one.row.set_result(row)

    def _rows(self, batch: list[_Waiting]) -> list[np.ndarray]:
        """Embeddings of the batch in its order, modality by modality where several share the tower."""
        rows: dict[int, np.ndarray] = {}
        for modality in dict.fromkeys(one.modality for one in batch):
            places = [place for place, one in enumerate(batch) if one.modality == modality]
            found = self._run(modality, [batch[place].item for place in places]).numpy()
            rows |= dict(zip(places, found, strict=True))
        return [rows[place] for place in range(len(batch))]
