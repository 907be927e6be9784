"""The state of a run - all that changes from step to step - as a checkpoint and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vitlens.processes import from_all, world
from vitlens.train.gradcache import rng_state, set_rng_state
from vitlens.train.items import BadItems
from vitlens.train.losses import LogitScale
from vitlens.train.optimizer import MovingAverage
from vitlens.train.tower import Parallel, live_state, load_optimizer_state, optimizer_state, put_back, whole_copies


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    loss: float = float("nan")
    best: float = -1.0
    """The best top-1 so far; -1 before the first evaluation."""
    waiting: int = 0
    """Evaluations since then."""
    stopped: bool = False
    score: tuple[float, float, int, int] | None = None
    bad: dict[str, str] = field(default_factory=dict)
    seen: int = 0


class RunState:
    """Weights, temperature, optimiser, moving average, random generators and progress."""

    def __init__(
        self, parallel: Parallel, scale: LogitScale, optimizer: Any, average: MovingAverage | None, bad: BadItems, scaler: Any
    ) -> None:
        self.parallel = parallel
        self.weights = live_state(parallel.tower.encoder)
        """The live weights that training changes, by name in the encoder."""
        self.scale = scale
        self.optimizer = optimizer
        self.average = average
        self.bad = bad
        self.scaler = scaler
        self.progress = Progress()

    def result(self) -> tuple[dict[str, Tensor], Tensor]:
        """Copies of (weights, log_scale) as they would be used: averaged, where there is an average."""
        weights = whole_copies(self.average.state if self.average is not None else self.weights)
        return weights, self.scale.log_scale.detach().cpu().clone()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The live weights are the averaged ones inside this block."""
        if self.average is None:
            yield
            return
        kept = {name: value.detach().clone() for name, value in self.weights.items()}
        put_back(self.weights, self.average.state)
        try:
            yield
        finally:
            put_back(self.weights, kept)

    def to_checkpoint(self) -> dict[str, Any]:
        """Copies of everything, as tensors and plain values. All processes must ask, one may write."""
        self.progress.bad, self.progress.seen = dict(self.bad.reasons), self.bad.seen
        return {
            "progress": dict(vars(self.progress)),
            "encoder": whole_copies(self.weights),
            "log_scale": self.scale.log_scale.detach().cpu().clone(),
            "optimizer": optimizer_state(self.optimizer),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "average": None if self.average is None else whole_copies(self.average.state),
            "generators": from_all([rng_state(self.parallel.device)]),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The inverse of `to_checkpoint`; another number of processes goes on with fresh random generators."""
        self.progress = Progress(**saved["progress"])
        put_back(self.weights, saved["encoder"])
        with torch.no_grad():
            self.scale.log_scale.copy_(saved["log_scale"])
        load_optimizer_state(self.optimizer, saved["optimizer"])
        if self.scaler is not None and saved["scaler"] is not None:
            self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            put_back(self.average.state, saved["average"])
        self.bad.reasons, self.bad.seen = dict(self.progress.bad), self.progress.seen
        rank, count = world()
        if len(saved["generators"]) == count:
            set_rng_state(saved["generators"][rank], self.parallel.device)
