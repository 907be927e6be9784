"""Task: what a run trains, on which items, by which loss, and what comes of it; the loop does all the rest.

    class Doubling(Task[nn.Module]):
        def __init__(self, options, numbers):
            super().__init__(options)
            self.network, self.loss, self.items = Line(), SquaredError(), Numbers(numbers)
            self.order = Order(np.arange(len(numbers)), options.batch_size, options.seed)

        def result(self):
            return self.network

A loss of several terms asks for several outputs of the network and adds up what it makes of them: outputs of all kinds are
gathered, cut into micro-batches and averaged alike, so a new term touches network, loss and targets, never the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vitlens.errors import InputError
from vitlens.train.examples import BadItems, Example, Order, TrainingBatch, collate
from vitlens.train.gradcache import Named
from vitlens.train.options import RunOptions

Model = TypeVar("Model")
Report = Callable[[str, int, int], None]
"""(what, done, total)."""


class Examples(Protocol):
    """(epoch, row) -> what stands there: the same, whoever asks and whenever."""

    def __getitem__(self, key: tuple[int, int], /) -> Example | InputError: ...


@dataclass(frozen=True)
class Accuracy:
    """Shares of items whose class is the first, or among the first five; `skipped` could not be read."""

    top1: float
    top5: float
    items: int
    skipped: int


@dataclass
class TrainingResult(Generic[Model]):
    """What a run gives: what the task makes of the trained network, the run's folder, and how it went."""

    model: Model
    folder: Path
    steps: int
    loss: float
    """Of the last step."""
    chance: float | None = None
    """The loss of a guess, where that is known."""
    score: Accuracy | None = None
    """The last evaluation."""
    best_top1: float | None = None
    bad_items: dict[str, str] = field(default_factory=dict)
    """Name -> what was wrong."""
    stopped_early: bool = False


class Task(ABC, Generic[Model]):
    """The base of all tasks. `network`, `loss`, `items` and `order` are there once `prepare` was called.

    network: named inputs -> named outputs, all [b, ...], one item by itself; it is wrapped for its processes. What requires a
        gradient trains.
    loss: (outputs, targets) of this process' items -> the loss, such that the mean of the processes' losses is the loss of the
        whole batch. It may have parameters of its own, which train too: a temperature.
    """

    network: nn.Module
    loss: nn.Module
    items: Examples
    order: Order
    bad: BadItems
    num_workers = 0
    """Processes that read items."""
    output = "output"
    """What the network gives of an item, for messages."""
    chance: float | None = None
    """The loss of a guess, where that is known."""
    every_epochs: int | None = None
    """Epochs between evaluations; none: nothing is evaluated."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.bad = BadItems(0.0, 0)

    def prepare(self, device: torch.device, report: Report) -> None:
        """What is long or needs the device and comes before the first step; all processes call it."""

    def identity(self) -> dict[str, Any]:
        """What a resumed run must find again."""
        return self.options.identity()

    @staticmethod
    def collate(loaded: Sequence[Example | InputError]) -> TrainingBatch:
        """Examples stacked to a batch; a function of the class, because it goes to the processes that read items."""
        return collate(loaded)

    def targets(self, batch: TrainingBatch) -> Mapping[str, Tensor]:
        """What the loss compares the outputs of a batch (on the device) with."""
        return batch.targets

    def train_mode(self, network: nn.Module) -> None:
        """Put the network into the mode in which it trains."""
        network.train()

    def units(self, network: nn.Module) -> Iterable[nn.Module]:
        """Its parts that FSDP2 shards one by one; what is in none is a unit of its own."""
        return ()

    def after_step(self) -> None:
        """What follows the optimiser's step: bounds."""

    def logged(self) -> dict[str, float]:
        """Numbers for the log, by column."""
        return {}

    def evaluate(self, network: Callable[[Named], Named], device: torch.device) -> Accuracy | None:
        """Score the network; processes share the items."""
        return None

    @abstractmethod
    def result(self) -> Model:
        """What trained `network` and `loss` are made into, on the CPU; all processes call it."""

    def save(self, model: Model, folder: Path) -> None:
        """Write the result into the run's folder; the first process calls it."""
