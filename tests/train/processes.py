"""Run by two processes (torchrun): gradients of one global batch, and whole runs; what they give is compared with one process.

python -m torch.distributed.run --nproc_per_node=2 -m tests.train.processes FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.train.pairs import PairTask, pair_options
from tests.train.tiny import DIM, SIZE, TOKENS, WIDTH, tiny_clip, tiny_recipe, world
from vitlens.processes import leave
from vitlens.processes import world as processes
from vitlens.train import LensTask, Trainer
from vitlens.train.gradcache import backward_through
from vitlens.train.losses import average_gradients
from vitlens.train.parallel import Parallel, named_trainable, start_accelerate, whole

BATCH = 8
ALIGNED = ("data.augment=false", "tokens.class_state.weight=1", "tokens.patches.kind=per_token")
ALONE: dict[str, tuple[str, ...]] = {
    "plain": ("model.trains.first_blocks=1",),
    "tokens": ("model.trains.first_blocks=1", *TOKENS),
    "per_token": ("model.trains.first_blocks=1", *ALIGNED),
}
"""What one process does."""
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "whole": ("plain", ()),
    "micro": ("plain", ("micro_batch=3",)),
    "fsdp2": ("plain", ("micro_batch=2", "parallel=fsdp2")),
    "tokens-micro": ("tokens", ("micro_batch=3",)),
    "tokens-fsdp2": ("tokens", ("micro_batch=2", "parallel=fsdp2")),
    "per_token": ("per_token", ("micro_batch=3",)),
}
"""How two processes do the same: what, and with which changes."""


def changes_of(variant: str) -> tuple[str, ...]:
    """All changes of a variant."""
    what, how = VARIANTS[variant]
    return (*ALONE[what], *how)


def gradients(folder: Path, *changes: str) -> dict[str, Tensor]:
    """The averaged gradients of one global batch, as the trainer computes them."""
    recipe = tiny_recipe(folder, *changes)
    accelerator = start_accelerate(recipe)
    task = LensTask(recipe, model=tiny_clip(text=False), train=world(BATCH))
    task.prepare(accelerator.device, lambda *_: None)
    parallel = Parallel(task, accelerator)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator)
    goals = {n: F.normalize(torch.randn(BATCH, DIM, generator=generator), dim=-1) for n in ("image", "text")}
    if recipe.tokens.on:
        goals |= {"class_state": torch.randn(BATCH, WIDTH, generator=generator)}
        goals |= {"patches": torch.randn(BATCH, 16, WIDTH, generator=generator)}
    rank, count = processes()
    mine = slice(rank * BATCH // count, (rank + 1) * BATCH // count)
    backward_through(
        parallel.run,
        {"x": x[mine]},
        lambda outputs: task.loss(outputs, {n: rows[mine] for n, rows in goals.items()}),
        micro_batch=recipe.micro_batch,
        backward=accelerator.backward,
        no_sync=parallel.no_sync,
        module=parallel.network,
    )
    average_gradients(task.loss)
    named = named_trainable(parallel.network, task.loss)
    found = {name: whole(p.grad).clone() for name, p in named if p.grad is not None}
    parallel.close()
    return found


def train(folder: Path, *changes: str) -> Any:
    """A short run; everything it needs and writes is under `folder`."""
    recipe = tiny_recipe(folder, "schedule.max_steps=4", "optimizer.eps=1e-3", *changes)
    return Trainer(LensTask(recipe, model=tiny_clip(text=False), train=world(24)), progress=False).run()


def pairs(folder: Path) -> None:
    """A short run of a task that is no lens; its weights."""
    result = Trainer(PairTask(pair_options(folder / "run", micro_batch=4)), progress=False).run()
    if processes()[0] == 0:
        torch.save(result.model.state_dict(), folder / "weights.pt")


def main(folder: Path) -> None:
    """All variants; the first process writes what they gave."""
    for name in VARIANTS:
        changes = changes_of(name)
        found = gradients(folder, *changes)
        train(folder / name, *changes)
        rank = processes()[0]
        if rank == 0:
            torch.save(found, folder / f"{name}.pt")
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}  # as on two machines that share no folder
    train(folder / "apart", *ALONE["tokens"], f"anchors.cache_folder={folder / f'cache-{rank}'}")
    last = folder / "fsdp2" / "run" / "checkpoints" / "step-000000004.pt"
    if rank == 0:
        last.unlink()
    torch.distributed.barrier()
    train(folder / "fsdp2", *changes_of("fsdp2"))
    pairs(folder / "pairs")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
