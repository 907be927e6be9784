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

from tests.train.tiny import DIM, SIZE, tiny_clip, tiny_recipe, world
from vitlens.processes import leave
from vitlens.processes import world as processes
from vitlens.train import Trainer, tower
from vitlens.train.gradcache import backward_through
from vitlens.train.losses import LogitScale, anchor_loss
from vitlens.train.start import with_new_encoder

BATCH = 8
VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": ("model.trains.first_blocks=1",),
    "micro": ("model.trains.first_blocks=1", "micro_batch=3"),
    "fsdp2": ("model.trains.first_blocks=1", "micro_batch=2", "parallel=fsdp2"),
}


def gradients(folder: Path, *changes: str) -> dict[str, Tensor]:
    """The averaged gradients of one global batch, as the trainer computes them."""
    recipe = tiny_recipe(folder, *changes)
    accelerator = tower.start_accelerate(recipe)
    torch.manual_seed(0)
    model = with_new_encoder(tiny_clip(text=False), recipe)
    parallel = tower.Parallel(model.encoders["depth"], recipe, accelerator)  # type: ignore[arg-type]
    scale = LogitScale(14.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator)
    goals = {n: F.normalize(torch.randn(BATCH, DIM, generator=generator), dim=-1) for n in ("image", "text")}
    rank, count = processes()
    mine = slice(rank * BATCH // count, (rank + 1) * BATCH // count)
    backward_through(
        parallel.embed,
        x[mine],
        lambda e: anchor_loss(e, {n: rows[mine] for n, rows in goals.items()}, scale()),
        micro_batch=recipe.micro_batch,
        backward=accelerator.backward,
        no_sync=parallel.no_sync,
        module=parallel.tower,
    )
    scale.average_gradient()
    named = tower.named_trainable(parallel.tower, scale)
    found = {name: tower.whole(p.grad).clone() for name, p in named if p.grad is not None}
    parallel.close()
    return found


def train(folder: Path, *changes: str) -> Any:
    """A short run; everything it needs and writes is under `folder`."""
    recipe = tiny_recipe(folder, "schedule.max_steps=4", "optimizer.eps=1e-3", *changes)
    return Trainer(recipe, model=tiny_clip(text=False), train=world(24), progress=False).run()


def main(folder: Path) -> None:
    """All variants; the first process writes what they gave."""
    for name, changes in VARIANTS.items():
        found = gradients(folder, *changes)
        train(folder / name, *changes)
        rank = processes()[0]
        if rank == 0:
            torch.save(found, folder / f"{name}.pt")
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}  # as on two machines that share no folder
    train(folder / "apart", *VARIANTS["whole"], f"anchors.cache_folder={folder / f'cache-{rank}'}")
    last = folder / "fsdp2" / "run" / "checkpoints" / "step-000000004.pt"
    if rank == 0:
        last.unlink()
    torch.distributed.barrier()
    train(folder / "fsdp2", *VARIANTS["fsdp2"])
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
