"""Actors of Ray make the pieces, on one machine or a cluster: one for each device, replaced when it dies, a piece at a time.

Plain actors, not Ray Data: a data set of pieces would have to be whole before it starts, an actor that fails in its start ends
the whole job there, and what became of a single piece is not told. Here an actor that fails or is killed - also while it starts -
is replaced and its piece tried again, so often; then that piece is reported and the rest goes on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitlens.errors import MissingDependencyError, OptionError, VitlensError
from vitlens.store.bulk.job import ATTEMPTS, Outcome, is_full, reason_of
from vitlens.store.bulk.maker import Maker, Told
from vitlens.store.bulk.pieces import Piece, Receipt
from vitlens.store.items import Failure, Item
from vitlens.store.job import Settings
from vitlens.store.places import Folder

if TYPE_CHECKING:
    from vitlens.model import ViTLens

OBJECT_STORE = 100 << 20
"""Bytes that a Ray of our own may use for what it passes around: pieces, which are names."""
STARTS = 3
"""Starts of actors that may fail one after the other, for each actor that is wanted."""


class Worker:
    """What an actor runs: a `Maker` with a model of its own."""

    def __init__(self, folder: str, model_name: str, settings: Settings, modalities: Sequence[str], **where: str | None) -> None:
        def load(needed: list[str]) -> ViTLens:
            from vitlens.model import load

            return load(where["model"] or model_name, modalities=needed, device=where["device"])

        self._maker = Maker(Folder(folder), model_name, settings, load, modalities)

    def ready(self) -> None:
        """Load the model; answers when that is done."""
        self._maker.prepare()

    def make(self, piece: Piece, sure: bool) -> tuple[Receipt, bool] | list[str]:
        """The receipt of a piece and whether it was made now; or, unless `sure`, files of it that this machine does not see."""
        unseen = [] if sure else [str(one.source) for one in piece.items if _is_local(one) and not os.path.exists(one.source)]
        return unseen or self._maker(piece)


def _absolute(entry: Item | Failure) -> Item | Failure:
    if isinstance(entry, Item) and isinstance(entry.source, Path):
        return replace(entry, source=entry.source.absolute())
    return entry


def _is_local(item: Item) -> bool:
    return isinstance(item.source, Path)


@dataclass
class _Task:
    piece: Piece
    attempts: int = 0
    sure: bool = False
    """Whether files of it are known to be gone, wherever one looks."""


@dataclass
class RayPool:
    """Actors that make the pieces of a job."""

    maker: Maker
    address: str | None = None
    """Of the cluster; None: one of our own on this machine."""
    workers: int | None = None
    """How many actors; None: one for each GPU of the cluster, or for each machine."""
    device: str | None = None
    _ray: Any = None
    _waiting: deque[_Task] = field(default_factory=deque)
    _starting: dict[Any, Any] = field(default_factory=dict)
    """What tells that an actor is ready -> the actor."""
    _working: dict[Any, tuple[Any, _Task]] = field(default_factory=dict)
    _failed_starts: int = 0
    _why: str = ""

    def make(self, pieces: Iterator[Piece], modalities: Sequence[str], told: Told) -> Iterator[Outcome]:
        """Make them, in any order.

        Raises:
            MissingDependencyError: no Ray.
            OptionError: no actor can be started, or actors do not see our files.
            VitlensError: what an actor says that no other attempt would change.
        """
        first = next(pieces, None)
        if first is None:
            return
        self._waiting.append(_Task(first))
        self._ray, ours = _connect(self.address)
        try:
            wanted = self._wanted()
            actor = self._actor_class(wanted).remote
            maker = self.maker
            folder = maker.folder.name if maker.folder.remote else os.path.abspath(maker.folder.name)
            where = {
                "model": os.path.abspath(maker.model_name) if os.path.isdir(maker.model_name) else None,
                "device": self.device,
            }
            start = partial(actor, folder, maker.model_name, maker.settings, [*modalities], **where)
            idle: list[Any] = []
            while True:
                self._refill(pieces, len(idle))
                while idle and self._waiting:
                    self._give(idle.pop(), self._waiting.popleft())
                running = len(self._starting) + len(self._working) + len(idle)
                needed = min(wanted, len(self._working) + len(self._waiting))
                for _ in range(needed - running if self._failed_starts < STARTS * wanted else 0):
                    new = start()
                    self._starting[new.ready.remote()] = new
                if not self._waiting and not self._working:
                    return
                if not self._starting and not self._working:
                    raise OptionError(f"no actor of Ray starts: {self._why}")
                done, _ = self._ray.wait([*self._starting, *self._working], num_returns=1, timeout=10)
                for answer in done:
                    yield from self._settle(answer, idle)
        finally:
            self._leave(ours)

    def _leave(self, ours: bool) -> None:
        """End the actors; and Ray, where it was started for them."""
        for actor in [*self._starting.values(), *(actor for actor, _ in self._working.values())]:
            self._ray.kill(actor)
        self._starting.clear()
        self._working.clear()
        if ours:
            self._ray.shutdown()

    def _wanted(self) -> int:
        resources = self._ray.cluster_resources()
        machines = sum(node["Alive"] for node in self._ray.nodes())
        return self.workers or int(resources.get("GPU", 0)) or machines

    def _actor_class(self, wanted: int) -> Any:
        resources = self._ray.cluster_resources()
        gpu = resources.get("GPU", 0) >= 1 and (self.device is None or self.device.startswith("cuda"))
        cores = max(1, int(resources.get("CPU", 1)) // wanted)
        return self._ray.remote(num_gpus=int(gpu), num_cpus=1 if gpu else cores, max_restarts=0)(Worker)

    def _refill(self, pieces: Iterator[Piece], idle: int) -> None:
        """Have a piece for every idle actor, and one more, so that it is known whether there are more."""
        while len(self._waiting) <= idle:
            piece = next(pieces, None)
            if piece is None:
                return
            self._waiting.append(_Task(piece))

    def _give(self, actor: Any, task: _Task) -> None:
        """An actor may stand in another folder than we: files go to it by their whole paths."""
        there = replace(task.piece, entries=tuple(_absolute(entry) for entry in task.piece.entries))
        self._working[actor.make.remote(there, task.sure)] = (actor, task)

    def _settle(self, answer: Any, idle: list[Any]) -> Iterator[Outcome]:
        """What came of a start or of a piece."""
        if answer in self._starting:
            actor = self._starting.pop(answer)
            try:
                self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                self._failed_starts += 1
                self._why = reason_of(_cause(error))
                self._ray.kill(actor)
            else:
                self._failed_starts = 0
                idle.append(actor)
            return
        actor, task = self._working.pop(answer)
        try:
            found = self._ray.get(answer)
        except self._ray.exceptions.RayActorError as error:  # it died, or was killed
            yield from self._again(task, error)
            return
        except self._ray.exceptions.RayError as error:
            idle.append(actor)
            yield from self._again(task, _cause(error))
            return
        idle.append(actor)
        if isinstance(found, list):
            self._check_unseen(found)
            self._waiting.appendleft(_Task(task.piece, task.attempts, sure=True))
            return
        receipt, made = found
        if made and Receipt.read(self.maker.folder, task.piece.name) is None:
            raise OptionError(f"output {self.maker.folder} is not the same folder on all machines: give one that they share")
        yield Outcome(task.piece, receipt, made)

    def _again(self, task: _Task, error: BaseException) -> Iterator[Outcome]:
        task.attempts += 1
        if task.attempts < ATTEMPTS:
            self._waiting.appendleft(task)
        else:
            yield Outcome(task.piece, None, reason=reason_of(error))

    def _check_unseen(self, names: Sequence[str]) -> None:
        here = next((name for name in names if os.path.exists(name)), None)
        if here is not None:
            raise OptionError(f"{here} is here, but an actor of Ray does not see it: inputs must lie where all machines see them")


def _cause(error: BaseException) -> BaseException:
    """What an actor raised; what no other attempt would change is raised here.

    Raises:
        VitlensError, OSError: that.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, VitlensError) or (isinstance(cause, OSError) and is_full(cause)):
        raise cause
    return cause if isinstance(cause, BaseException) else error


def _connect(address: str | None) -> tuple[Any, bool]:
    """Ray, and whether it was started here; where this process is connected already, that is used."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # actors are the job, not something beside it
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependencyError("--engine ray needs Ray: pip install 'vitlens[scale]'") from error
    if ray.is_initialized():
        return ray, False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    ours: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    for attempt in range(1, ATTEMPTS + 1):  # a machine that is very busy may be too slow for it at first
        try:
            ray.init(**(ours if address is None else {"address": address}), **quiet)
            break
        except ConnectionError as error:
            raise OptionError(f"--ray-address {address}: no Ray answers there ({' '.join(str(error).split())})") from error
        except Exception as error:  # Ray says it with exceptions of no kind
            ray.shutdown()
            if attempt == ATTEMPTS:
                raise OptionError(f"Ray does not start ({' '.join(str(error).split())}): try again, or --engine local") from error
    return ray, True
