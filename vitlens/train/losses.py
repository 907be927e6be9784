"""The contrastive loss to frozen anchors, over the items of all processes.

Each process holds some rows of the global batch. It compares its rows with the rows of all, and the mean of the processes'
losses is the loss of the whole batch (mean over its rows). Gathering passes gradients back to the process that owns a row, so
that the averaged gradients of N processes are those of one process with the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vitlens.processes import world


class LogitScale(nn.Module):
    """The temperature's inverse, learned as its natural logarithm and kept within [1, max_scale]."""

    def __init__(self, initial: float, *, max_scale: float = 100.0, learn: bool = True) -> None:
        super().__init__()
        self.limit = math.log(max_scale)
        self.log_scale = nn.Parameter(torch.tensor(min(math.log(initial), self.limit)), requires_grad=learn)

    def forward(self) -> Tensor:
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the logarithm back into [0, ln max_scale]; done after every step."""
        self.log_scale.clamp_(0.0, self.limit)

    def average_gradient(self) -> None:
        """The mean of the processes' gradients; the network's own are averaged by what wraps it."""
        if world()[1] > 1 and self.log_scale.grad is not None:
            dist.all_reduce(self.log_scale.grad)
            self.log_scale.grad /= world()[1]

    @property
    def value(self) -> float:
        """exp(log_scale)."""
        return math.exp(float(self.log_scale.detach()))


class _GatherRows(torch.autograd.Function):
    """[b, E] of every process -> [world * b, E]; the gradient of a row is the sum of what all processes say of it."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world()[1])]
        dist.all_gather(parts, rows.contiguous())
        context.count = rows.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        first = world()[0] * context.count
        return total[first : first + context.count]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [b, E] of all processes in rank order, [world * b, E], with gradients. Every process must have as many."""
    return rows if world()[1] == 1 else _GatherRows.apply(rows)


def clip_loss(a: Tensor, b: Tensor, scale: Tensor, *, ignore_duplicates: bool = False) -> Tensor:
    """The symmetric CLIP loss of this process' rows a, b [n, E] (normalised) against the rows of all processes.

    With `ignore_duplicates` rows of `b` that are equal are no negatives of each other: their logits are left out.
    """
    all_a, all_b = gather_rows(a), gather_rows(b)
    first = world()[0] * a.shape[0]
    targets = torch.arange(first, first + a.shape[0], device=a.device)
    logits_a, logits_b = scale * (a @ all_b.T), scale * (b @ all_a.T)
    if ignore_duplicates:
        same = (b.detach() @ all_b.detach().T) > 1 - 1e-6
        same[torch.arange(len(targets), device=a.device), targets] = False
        logits_a, logits_b = logits_a.masked_fill(same, float("-inf")), logits_b.masked_fill(same, float("-inf"))
    return (F.cross_entropy(logits_a, targets) + F.cross_entropy(logits_b, targets)) / 2


def anchor_loss(sensor: Tensor, anchors: Mapping[str, Tensor], scale: Tensor, *, ignore_duplicates: bool = False) -> Tensor:
    """The sum over the anchors of the CLIP loss between `sensor` [n, E] and each [n, E]; all normalised, in float32.

    With image and text this is the loss of ViT-Lens-2 (arXiv 2311.16081); there is no image-text term.
    """
    terms = [
        clip_loss(sensor.float(), rows.float(), scale.float(), ignore_duplicates=ignore_duplicates) for rows in anchors.values()
    ]
    return torch.stack(terms).sum()
