"""Which items make up which batch, and what a batch is: a pure function of the seed, the epoch and the item.

Neither the number of workers nor of processes changes what an item looks like or where it stands in a global batch, so that a run
can be stopped anywhere and go on, and N processes do what one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlens.errors import InputError, OptionError


def seed_of(*parts: Any) -> int:
    """A seed made of numbers and words."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator on the CPU starts from `seed` inside this block, and goes on after it as if nothing had been.

    (`torch.manual_seed` would also seed devices that a loader's worker never uses, at two milliseconds a call.)
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@dataclass(frozen=True)
class Order:
    """Epochs of shuffled items cut into global batches; what is left over at the end of an epoch is not used in it.

    `usable` are the row numbers to choose from. With `groups` (the shard of each row) shards are shuffled, and the items of
    `window` shards at a time among each other, so that reading stays local. An epoch goes through all items `repeat` times.
    """

    usable: np.ndarray
    batch_size: int
    seed: int
    groups: np.ndarray | None = None
    window: int = 16
    repeat: int = 1

    def __post_init__(self) -> None:
        if len(self.usable) < self.batch_size:
            raise OptionError(
                f"batch_size is {self.batch_size}, but there are only {len(self.usable)} usable items: make it smaller"
            )

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.usable) * self.repeat // self.batch_size

    def epoch(self, number: int) -> np.ndarray:
        """Row numbers of all batches of an epoch, [steps, batch_size]."""
        chance = np.random.Generator(np.random.PCG64(seed_of(self.seed, "order", number)))
        order = np.concatenate([self._shuffled(chance) for _ in range(self.repeat)])
        return order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)

    def _shuffled(self, chance: np.random.Generator) -> np.ndarray:
        return self.usable[chance.permutation(len(self.usable))] if self.groups is None else self._by_windows(chance)

    def _by_windows(self, chance: np.random.Generator) -> np.ndarray:
        group_of = self.groups[self.usable]  # type: ignore[index]
        shuffled = chance.permutation(np.unique(group_of))
        rank = np.empty(int(shuffled.max()) + 1, np.int64)
        rank[shuffled] = np.arange(len(shuffled))
        return self.usable[np.lexsort((chance.random(len(self.usable)), rank[group_of] // self.window))]


@dataclass(frozen=True)
class StepSampler:
    """The rows of one process, step by step from `start` to `stop`, as (epoch, row) keys."""

    order: Order
    start: int
    stop: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        local = self.order.batch_size // self.world
        known, batches = -1, np.empty((0, 0))
        for step in range(self.start, self.stop):
            epoch, place = divmod(step, self.order.steps)
            if epoch != known:
                known, batches = epoch, self.order.epoch(epoch)
            rows = batches[place][self.rank * local : (self.rank + 1) * local]
            yield [(epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class Example:
    """One example: what the network takes of it and what the loss compares with, by name, each without a batch's dimension."""

    epoch: int
    row: int
    name: str
    inputs: dict[str, Tensor]
    targets: dict[str, Tensor] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of items that could not be read, in whose place it stands."""


@dataclass
class TrainingBatch:
    """Examples of one process: inputs and targets, each [b, ...], their epochs, rows and names; and what could not be read."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    epochs: Sequence[int] = ()
    rows: Sequence[int] = ()
    names: Sequence[str] = ()
    bad: list[tuple[str, str]] = field(default_factory=list)
    failure: InputError | None = None
    """What ends the run: an item and all its substitutes cannot be read. (Raised in a loader's worker it would lose its type.)"""

    def to(self, device: torch.device) -> TrainingBatch:
        """Its tensors on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> TrainingBatch:
        """Called by the loader on the way to a GPU."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        self.inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        self.targets = {name: change(tensor) for name, tensor in self.targets.items()}
        return self


def collate(loaded: Sequence[Example | InputError]) -> TrainingBatch:
    """Stack examples.

    Raises:
        OptionError: their shapes differ; two are named.
    """
    items = [item for item in loaded if isinstance(item, Example)]
    failure = next((item for item in loaded if isinstance(item, InputError)), None)
    if failure is not None:
        return TrainingBatch(failure=failure)
    return TrainingBatch(
        inputs={name: _stacked(items, [item.inputs[name] for item in items]) for name in items[0].inputs},
        targets={name: _stacked(items, [item.targets[name] for item in items]) for name in items[0].targets},
        epochs=[item.epoch for item in items],
        rows=[item.row for item in items],
        names=[item.name for item in items],
        bad=[entry for item in items for entry in item.bad],
    )


def _stacked(items: Sequence[Example], tensors: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(tensor.shape): item.name for item, tensor in zip(items, tensors, strict=True)}
    if len(shapes) > 1:
        (one, first), (two, second) = list(shapes.items())[:2]
        raise OptionError(f"items of one batch differ in shape: {first} gives {list(one)}, {second} gives {list(two)}")
    return torch.stack(list(tensors))


@dataclass
class BadItems:
    """What could not be read, counted once by name; no more than the share `limit` of all `total` items may be."""

    limit: float
    total: int
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, entries: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Count entries; returns those that are new."""
        new = [(name, reason) for name, reason in entries if name not in self.reasons]
        self.reasons |= dict(new)
        return new

    def check(self) -> None:
        """Raise OptionError when there are too many, with the first few named."""
        if len(self.reasons) <= self.limit * self.total:
            return
        some = "; ".join(f"{name}: {reason}" for name, reason in list(self.reasons.items())[:5])
        raise OptionError(
            f"{len(self.reasons)} of {self.total} items cannot be read, more than data.max_bad_share={self.limit:g} allows. "
            + some
        )
