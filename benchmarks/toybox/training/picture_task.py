"""What the trainings of the Toybox's own models share: items drawn from the world's pictures; how fast and how long they go."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vitlens.errors import InputError
from vitlens.train.examples import Example, Order, TrainingBatch, seed_of
from vitlens.train.gradcache import Named
from vitlens.train.options import CheckpointOptions, LogOptions, OptimizerOptions, RunOptions, ScheduleOptions, plain
from vitlens.train.task import Model, Task


def pacing(
    epochs: int,
    batch: int,
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    warmup: int = 200,
    average: float | None = None,
    precision: Literal["fp32", "bf16"] = "bf16",
) -> RunOptions:
    """How long and how fast: AdamW under a cosine that a warm-up begins; `average` is the decay of a moving average's."""
    return RunOptions(
        optimizer=OptimizerOptions(lr=lr, weight_decay=weight_decay, clip_norm=1.0, ema=average, ema_warmup=True),
        schedule=ScheduleOptions(kind="cosine_from_start", warmup_steps=warmup, epochs=epochs),
        checkpoints=CheckpointOptions(every_steps=50, keep=1),
        logs=LogOptions(tensorboard=False),
        batch_size=batch,
        precision=precision,
    )


class PictureTask(Task[Model]):
    """A task over `rows` pictures; `recipe` is what must be the same when an interrupted training goes on.

    What is drawn of a picture follows from seed, epoch and row: `draw` gets a generator of its own each time.
    """

    def __init__(self, run: RunOptions, folder: Path, recipe: Any, rows: int) -> None:
        super().__init__(replace(run, name=folder.name, output=str(folder), seed=recipe.seed))
        self.recipe = recipe
        self.items = self
        self.order = Order(np.arange(rows), run.batch_size, recipe.seed)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, row = key
        chance = torch.Generator().manual_seed(seed_of(self.options.seed, "draw", epoch, row))
        return Example(epoch, row, f"picture {row}", *self.draw(row, chance))

    @abstractmethod
    def draw(self, row: int, chance: torch.Generator) -> tuple[Named, Named]:
        """Inputs and targets made of one picture."""

    def identity(self) -> dict[str, Any]:
        """Options, recipe, and how many pictures there are."""
        return {**super().identity(), "task": plain(self.recipe), "rows": len(self.order.usable)}


@torch.no_grad()
def look(
    pictures: Tensor,
    prepare: Callable[[Tensor], Tensor],
    see: Callable[[Tensor], Tensor],
    device: torch.device,
    dtype: torch.dtype = torch.float16,
) -> Tensor:
    """What `see` gives of prepared pictures uint8 [n, 64, 64, 3], some at once on the device; kept on the CPU as `dtype`.

    It is computed in bf16 on a GPU; many CPUs are slow in it.
    """
    parts = []
    for part in pictures.split(250):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            parts.append(see(prepare(part).to(device)).to("cpu", dtype))
    return torch.cat(parts)


def collate_padded(loaded: Sequence[Example | InputError], *names: str) -> TrainingBatch:
    """Items as a batch; of the inputs `names` those that are there are padded with zeros to the longest."""
    items = [item for item in loaded if isinstance(item, Example)]
    for name in {*names} & set(items[0].inputs):
        padded = pad_sequence([item.inputs[name] for item in items], batch_first=True)
        for item, ids in zip(items, padded, strict=True):
            item.inputs[name] = ids
    return PictureTask.collate(items)


def flip(chance: torch.Generator, share: float = 0.5) -> bool:
    """True in that share of the cases."""
    return bool(torch.rand((), generator=chance) < share)


def pick(count: int, chance: torch.Generator) -> int:
    """One of 0 ... count - 1."""
    return int(torch.randint(0, count, (), generator=chance))


def as_pixels(pictures: Tensor) -> Tensor:
    """uint8 [..., 64, 64, 3] -> float32 [..., 3, 64, 64] in 0 ... 1."""
    return pictures.movedim(-1, -3).float() / 255
