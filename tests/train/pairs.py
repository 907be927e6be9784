"""A task that is no lens: two views of the same points learn to find each other, beside a plain regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.train import RunOptions, Task
from vitlens.train.examples import Example, Order, seed_of, seeded
from vitlens.train.losses import LogitScale, clip_loss, gather_rows
from vitlens.train.options import CheckpointOptions, LogOptions, OptimizerOptions, ScheduleOptions

POINTS = torch.randn(48, 6, generator=torch.Generator().manual_seed(3))


def pair_options(folder: Path, **changes: Any) -> RunOptions:
    """A short run with everything that has a state of its own."""
    options = {
        "name": "pairs",
        "optimizer": OptimizerOptions(lr=1e-2, eps=1e-3, clip_norm=1.0, ema=0.9, ema_warmup=True),
        "schedule": ScheduleOptions(kind="cosine_from_start", warmup_steps=2, epochs=3),
        "checkpoints": CheckpointOptions(every_steps=1),
        "logs": LogOptions(tensorboard=False, plot=False),
        "batch_size": 12,
        "device": "cpu",
        "output": str(folder),
    }
    return RunOptions(**{**options, **changes})


class Points:
    """(epoch, row) -> a point, the point moved a little, and its class."""

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, row = key
        with seeded(seed_of(0, "points", epoch, row)):
            moved = POINTS[row] + 0.1 * torch.randn(6)
        targets = {"class": torch.tensor(row % 20), "size": POINTS[row].norm()}
        return Example(epoch, row, f"point {row}", {"one": POINTS[row], "other": moved}, targets)


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.size = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 1)

    def forward(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        a, b = F.normalize(self.one(one), dim=-1), F.normalize(self.other(other), dim=-1)
        return {"one": a, "other": b, "size": self.size(one)[:, 0]}


class PairLoss(nn.Module):
    """Points of the same class count as right; and the size of each point has to be guessed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = LogitScale(10.0)

    def forward(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        same = targets["class"][:, None] == gather_rows(targets["class"])[None]
        found = clip_loss(outputs["one"], outputs["other"], self.scale(), same=same)
        return found + F.mse_loss(outputs["size"], targets["size"])


class PairTask(Task[nn.Module]):
    def __init__(self, options: RunOptions, rows: int = len(POINTS)) -> None:
        super().__init__(options)
        torch.manual_seed(1)
        self.network, self.loss, self.items = Views(), PairLoss(), Points()
        self.order = Order(np.arange(rows), options.batch_size, options.seed)
        self.saved: Path | None = None

    def result(self) -> nn.Module:
        return self.network

    def save(self, model: nn.Module, folder: Path) -> None:
        self.saved = folder
