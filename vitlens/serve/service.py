"""The service without HTTP: a model, its readers and its batcher; items in, embeddings out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.errors import SpaceError, VitlensError
from vitlens.serve.batcher import Batcher
from vitlens.serve.content import Grammar, Item
from vitlens.serve.fetch import Fetcher
from vitlens.serve.given import Address, Given
from vitlens.serve.metrics import Metrics
from vitlens.serve.readers import Readers
from vitlens.serve.refusals import Refusal, invalid, refusal_of, too_large
from vitlens.serve.settings import ChatHost, Settings

if TYPE_CHECKING:
    from vitlens.index import Index
    from vitlens.model import ViTLens
    from vitlens.scene.folder import Scene
    from vitlens.space import EmbeddingSpace

AHEAD = 4
"""So many batches of preprocessed files are kept ready for the model, no more: they take memory."""
KEPT_CLASSES = 64


@dataclass
class Embedded:
    """Embeddings of length 1, float32 [n, E], what they cost, and what readers had to say."""

    vectors: np.ndarray
    tokens: int = 0
    """Tokens of the texts."""
    kinds: list[str] = field(default_factory=list)
    """Each item's modality; `mixture` of several parts."""
    modalities: Counter[str] = field(default_factory=Counter)
    """How many things of each were embedded."""
    remarks: list[tuple[int, str]] = field(default_factory=list)
    """(item, what its reader remarks)."""


@dataclass
class One:
    """One thing, embedded: its embedding [E], modality, tokens (of a text) and remarks."""

    row: np.ndarray
    modality: str
    tokens: int = 0
    remarks: list[str] = field(default_factory=list)


class Service:
    """What `vitlens serve` serves; started and closed by its application."""

    def __init__(self, settings: Settings, *, load: Callable[[], ViTLens] | None = None, fetcher: Fetcher | None = None) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.metrics = Metrics()
        self.state = "starting"
        """starting, ready, failed or closing."""
        self.failure: Exception | None = None
        self.created = int(time.time())
        self.on_failure: Callable[[], None] = lambda: None
        self.chat: ChatHost | None = None
        self.chat_thread = ThreadPoolExecutor(1, thread_name_prefix="vitlens-chat")
        self._load = load or partial(_open_model, settings)
        self._fetcher = fetcher
        self._settled: asyncio.Event | None = None
        self._classes: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()

    # --- life ---

    async def start(self) -> None:
        """Load the model and start readers and batcher; `ready` waits for it. What goes wrong is kept in `failure`."""
        self._settled = self._settled or asyncio.Event()
        try:
            self.model = await asyncio.to_thread(self._load)
            self.grammar = Grammar(self.model.modalities, self.model.space.dim, self.limits)
            sensors = {name: self.model.modality(name) for name in self.model.modalities}
            self.readers = Readers(sensors, self.settings.readers, self.limits)
            self.batcher = Batcher(self._run, self.model.tower, batch_size=self.settings.batch_size, metrics=self.metrics)
            self.batcher.start()
            self._reading = asyncio.Semaphore(self.settings.readers)
            self._room = asyncio.Semaphore(AHEAD * self.settings.batch_size)
            if self.settings.chat is not None:
                self.chat = await asyncio.to_thread(self.settings.chat)
            self.index, self.scene = await asyncio.to_thread(self._open_collections)
            self._fetcher = self._fetcher or Fetcher(self.settings.hosts, self.limits)
            await self.readers.start()
            self.state = "ready"
        except Exception as error:
            self.state, self.failure = "failed", error
            self.on_failure()
        finally:
            self._settled.set()

    async def ready(self) -> Service:
        """This service, once it is ready: whoever comes earlier waits.

        Raises:
            Refusal: it could not start.
        """
        self._settled = self._settled or asyncio.Event()
        await self._settled.wait()
        if self.failure is not None:
            raise Refusal(503, "the service could not start; its log says why", code="not_started")
        return self

    async def close(self) -> None:
        """Finish what was accepted, and let go of model, processes and files."""
        if self.state != "ready":
            return
        self.state = "closing"
        await self.batcher.close()
        self.chat_thread.shutdown(wait=True)
        await asyncio.to_thread(self.readers.close)
        if self._fetcher is not None:
            await self._fetcher.close()

    # --- what it is ---

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.model.spec.name

    def check_model(self, wanted: str | None) -> None:
        """Refuse a request for another model."""
        known = {self.name, *self.settings.aliases}
        if wanted and wanted not in known | {self.settings.model, self.settings.model.rpartition("/")[2]}:
            message = f"no model {wanted!r} here; this service has {', '.join(sorted(known))}"
            raise Refusal(404, message, code="model_not_found", param="model")

    # --- what it does ---

    async def embed(self, items: Sequence[Item]) -> Embedded:
        """An embedding per item, in order; an item of several parts is their mixture.

        Raises:
            Refusal: something that cannot be read or fetched, by its place; nothing is embedded then.
        """
        rows: list[np.ndarray] = []
        result = Embedded(np.empty((0, self.model.space.dim), np.float32))
        for place, (item, mine) in enumerate(zip(items, await self.parts(items), strict=True)):
            rows.append(self._mixed([one.row for one in mine], item))
            result.tokens += sum(one.tokens for one in mine)
            result.modalities.update(one.modality for one in mine)
            result.kinds.append(mine[0].modality if len(mine) == 1 else "mixture")
            result.remarks += [(place, remark) for one in mine for remark in one.remarks]
        if rows:
            result.vectors = np.stack(rows)
        return result

    async def parts(self, items: Sequence[Item]) -> list[list[One]]:
        """The parts of every item, each embedded for itself.

        Raises:
            Refusal: as `embed`.
        """
        given = [one for item in items for one in item]
        if len(given) > self.limits.items:
            raise too_large("input", f"{len(given)} items and parts", "items", self.limits, "input")
        found = deque(await _all([self._one(one) for one in given]))
        for modality, count in Counter(one.modality for one in found).items():
            self.metrics.items.add(modality, amount=count)
        return [[found.popleft() for _ in item] for item in items]

    async def preview(self, given: Given, *, dark: bool) -> dict[str, Any]:
        """What a person wants to see of one thing, see `Readers.preview`.

        Raises:
            Refusal: something that cannot be read or fetched, or an embedding, of which there is nothing to see.
        """
        try:
            if isinstance(given.content, np.ndarray):
                raise invalid(f"{given.where}: of an embedding there is nothing to see", given.where)
            given = await self.fetched(given)
            async with self._reading:
                return await self.readers.preview(given, dark=dark)
        except VitlensError as error:
            raise refusal_of(error, given.where) from error

    async def class_vectors(self, labels: Sequence[str], templates: Sequence[str] | None = None) -> np.ndarray:
        """One vector per class [c, E], as `ViTLens.class_vectors`; those that were asked for lately are kept.

        Raises:
            Refusal: labels or templates that cannot be used.
        """
        import torch

        from vitlens.words import check_labels
        from vitlens.zeroshot import DEFAULT_TEMPLATES, class_prompts, class_vectors

        chosen = tuple(templates) if templates is not None else DEFAULT_TEMPLATES
        key = (tuple(labels), chosen)
        if key in self._classes:
            self._classes.move_to_end(key)
            return self._classes[key]
        try:
            prompts = class_prompts(labels, chosen)
            await asyncio.to_thread(check_labels, self.model.modality("text"), prompts)
        except VitlensError as error:
            raise refusal_of(error, "labels") from error
        texts = [[Given("text", "labels", prompt)] for lines in prompts.values() for prompt in lines]
        rows = torch.from_numpy((await self.embed(texts)).vectors)
        found = class_vectors(lambda given: rows, labels, chosen).numpy()
        self._classes[key] = found
        while len(self._classes) > KEPT_CLASSES:
            self._classes.popitem(last=False)
        return found

    async def _one(self, given: Given) -> One:
        try:
            if isinstance(given.content, np.ndarray):
                return One(given.content, given.modality)
            if isinstance(given.content, str):
                modality, tensor, remarks = await self.readers.read(given)
                row = await self.batcher.embed(modality, tensor)
                return One(row, modality, int((tensor != 0).sum()), remarks)
            return await self._file(given)
        except VitlensError as error:
            raise refusal_of(error, given.where) from error

    async def fetched(self, given: Given) -> Given:
        """The same with the file in the place of its address."""
        if not isinstance(given.content, Address):
            return given
        assert self._fetcher is not None
        return replace(given, content=await self._fetcher.fetch(given.content, given.where))

    async def _file(self, given: Given) -> One:
        given = await self.fetched(given)
        async with self._reading:
            await self._room.acquire()
            try:
                with self.metrics.reading_duration.labels(given.modality or "unknown").time():
                    modality, tensor, remarks = await self.readers.read(given)
            except BaseException:
                self._room.release()
                raise
        try:
            return One(await self.batcher.embed(modality, tensor), modality, 0, remarks)
        finally:
            self._room.release()

    def _mixed(self, rows: list[np.ndarray], item: Item) -> np.ndarray:
        if len(rows) == 1 and item[0].weight > 0:
            return rows[0]
        import torch

        try:
            mixed = self.model.compose([torch.from_numpy(row) for row in rows], weights=[given.weight for given in item])
        except VitlensError as error:
            raise refusal_of(error, item[0].where) from error
        return mixed.numpy()

    def _open_collections(self) -> tuple[Index | None, Scene | None]:
        """The index and the scene that were named, of the model's own space."""
        index, scene = None, None
        if self.settings.index is not None:
            from vitlens.index import Index

            index = Index.open(self.settings.index)
            self._same_space(index.space, f"index {self.settings.index}")
        if self.settings.scene is not None:
            from vitlens.scene.folder import open_scene

            scene = open_scene(self.settings.scene)
            self._same_space(scene.space, f"scene {self.settings.scene}")
        return index, scene

    def _same_space(self, space: EmbeddingSpace, what: str) -> None:
        if space != self.model.space:
            own = self.model.space
            raise SpaceError(
                f"{what} is of space {space.name} ({space.dim}), the model {self.name} of {own.name} ({own.dim}): "
                "serve it with the model that made it"
            )

    def _run(self, modality: str, batch: list[Any]) -> Any:
        """Preprocessed items -> embeddings of length 1 [b, E]; runs in the model's thread."""
        import torch.nn.functional as F

        from vitlens.precision import torch_dtype

        return F.normalize(self.model.embed(modality, batch, torch_dtype(self.settings.dtype)), dim=-1)


def _open_model(settings: Settings) -> ViTLens:
    from vitlens.model import load

    return load(settings.model, device=settings.device)


async def _all(work: Sequence[Any]) -> list[Any]:
    """All results in order; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
