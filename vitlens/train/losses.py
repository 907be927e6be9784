"""Losses over the items of all processes: the contrastive one to frozen anchors, and what others are made of.

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

from vitlens.errors import OptionError
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


def average_gradients(loss: nn.Module) -> None:
    """The mean of the processes' gradients of a loss's own parameters; the network's are averaged by what wraps it."""
    for parameter in loss.parameters():
        if world()[1] > 1 and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world()[1]


def clip_loss(a: Tensor, b: Tensor, scale: Tensor, *, same: Tensor | None = None, ignore_duplicates: bool = False) -> Tensor:
    """The symmetric CLIP loss of this process' rows a, b [n, E] (normalised) against the rows of all processes.

    `same` [n, N] says which of all rows of `b` are as right as a row's own: each counts as much. With `ignore_duplicates` rows of
    `b` that are equal are no negatives of each other: their logits are left out.
    """
    all_a, all_b = gather_rows(a), gather_rows(b)
    first = world()[0] * a.shape[0]
    own = torch.arange(first, first + a.shape[0], device=a.device)
    targets = own if same is None else same.float() / same.sum(dim=1, keepdim=True)
    logits_a, logits_b = scale * (a @ all_b.T), scale * (b @ all_a.T)
    if ignore_duplicates:
        equal = (b.detach() @ all_b.detach().T) > 1 - 1e-6
        equal[torch.arange(len(own), device=a.device), own] = False
        logits_a, logits_b = logits_a.masked_fill(equal, float("-inf")), logits_b.masked_fill(equal, float("-inf"))
    return (F.cross_entropy(logits_a, targets) + F.cross_entropy(logits_b, targets)) / 2


def chance_loss(batch_size: int, terms: int = 1) -> float:
    """What a guess gives: ln(batch size) for each of the `terms` that are added up.

    Raises:
        OptionError: a batch of one item, which has nothing to be told apart from.
    """
    if batch_size < 2:
        raise OptionError(f"batch_size={batch_size}: a contrastive loss compares the items of a batch; take 2 or more")
    return terms * math.log(batch_size)


class AnchorLoss(nn.Module):
    """The sum over the anchors of the CLIP loss between the sensor's embeddings and each; all normalised, in float32.

    With image and text this is the loss of ViT-Lens-2 (arXiv 2311.16081); there is no image-text term.
    """

    def __init__(self, scale: LogitScale, *, ignore_duplicates: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.ignore_duplicates = ignore_duplicates

    def forward(self, outputs: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> Tensor:
        """`outputs`' "embedding" [n, E] and the anchors {name: [n, E]} of this process' items -> the loss."""
        return self.between(outputs["embedding"], anchors, self.scale())

    def between(self, embedding: Tensor, anchors: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        """The same of any embedding [n, E], at a temperature of its own."""
        embedding, scale = embedding.float(), scale.float()
        return torch.stack(
            [clip_loss(embedding, rows.float(), scale, ignore_duplicates=self.ignore_duplicates) for rows in anchors.values()]
        ).sum()
