"""A training of the Toybox that may be cut at any moment: module, optimiser and step stand in one file, written whole.

The same call goes on from there, and ends with the very weights that an unbroken training would have had.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from vitlens.cli.console import console
from vitlens.disk import atomic
from vitlens.errors import OptionError

LossOf = Callable[[Tensor, torch.Generator], Tensor]
"""Row numbers of a batch, and a generator that is the batch's own -> the loss to lower."""


@dataclass(frozen=True)
class Pace:
    """How long and how fast: epochs of batches, AdamW under a cosine after a warm-up."""

    epochs: int
    batch: int
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 200
    average: float | None = None
    """Decay of an exponential moving average of the weights, which then is the result."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1:
            raise OptionError(f"toybox: epochs and batch must be 1 or more, found {self.epochs} and {self.batch}")


class Steps:
    """The steps of one training over `rows` rows; `settings` is what must be the same when it goes on."""

    def __init__(
        self,
        file: Path,
        module: nn.Module,
        pace: Pace,
        *,
        rows: int,
        settings: dict[str, Any],
        seed: int = 0,
        save_seconds: float = 60,
    ) -> None:
        self.file, self.module, self.pace, self.rows, self.seed = file, module, pace, rows, seed
        self.settings = json.loads(json.dumps(settings))
        self.save_seconds = save_seconds
        self.per_epoch = rows // pace.batch
        self.steps, self.step = pace.epochs * self.per_epoch, 0
        if not self.steps:
            raise OptionError(f"toybox: {rows} rows are less than one batch of {pace.batch}")
        trained = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": pace.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.trained = trained
        self.optimizer = torch.optim.AdamW(groups, lr=pace.lr, betas=(0.9, 0.98), eps=1e-6)
        self.average = copy.deepcopy(module) if pace.average is not None else None
        self._resume()

    def run(self, loss_of: LossOf, *, title: str, after: Callable[[], None] = lambda: None) -> nn.Module:
        """Do the steps that are left; returns the trained module (its average, where one is kept). `after` follows each step."""
        columns = (TextColumn(title + " {task.completed}/{task.total} {task.description}"), BarColumn(), TimeRemainingColumn())
        saved = time.monotonic()
        with Progress(*columns, console=console(error=True)) as progress:
            task = progress.add_task("", total=self.steps, completed=self.step)
            while self.step < self.steps:
                loss = self._update(loss_of)
                after()
                self.step += 1
                if time.monotonic() - saved > self.save_seconds or self.step == self.steps:
                    self._save()
                    saved = time.monotonic()
                progress.update(task, advance=1, description=f"loss {loss:.3f}")
        return self.module if self.average is None else self.average

    def _update(self, loss_of: LossOf) -> float:
        epoch, place = divmod(self.step, self.per_epoch)
        order = torch.randperm(self.rows, generator=_generator(self.seed, epoch, -1))
        rows = order[place * self.pace.batch : (place + 1) * self.pace.batch]
        warm = min(1.0, (self.step + 1) / self.pace.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace.lr * warm * cosine
        loss = loss_of(rows, _generator(self.seed, epoch, place))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        if self.average is not None:
            decay = min(self.pace.average or 0.0, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for kept, new in zip(self.average.parameters(), self.module.parameters(), strict=True):
                    kept.lerp_(new, 1 - decay)
        return float(loss.detach())

    def _resume(self) -> None:
        if not self.file.is_file():
            return
        state = torch.load(self.file, weights_only=True, map_location="cpu")
        if state["recipe"] != self.settings:
            raise OptionError(f"{self.file} belongs to another recipe: {json.dumps(state['recipe'])}; take another folder")
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step = state["step"]

    def _save(self) -> None:
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        state |= {"average": self.average.state_dict()} if self.average is not None else {}
        with atomic(self.file) as part:
            torch.save({**state, "recipe": self.settings}, part)


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([k + 1 for k in key]).generate_state(1)[0]))
