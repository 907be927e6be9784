"""AdamW with the published grouping, the learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vitlens.train.options import OptimizerOptions, ScheduleOptions


def has_decay(name: str, parameter: Tensor) -> bool:
    """Whether weight decay acts on a parameter: not on biases, norms, other vectors, and logit_scale."""
    return parameter.ndim >= 2 and not name.endswith("log_scale")


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], options: OptimizerOptions) -> list[dict[str, object]]:
    """Optimiser groups of what trains: with and without decay, the ViT's own apart when it has its own learning rate.

    `scale` is the group's factor on the schedule's learning rate.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            scale = options.vit_lr_scale if ".vit." in f".{name}" else 1.0
            groups.setdefault((has_decay(name, parameter), scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": options.weight_decay if decay else 0.0, "scale": scale, "lr": options.lr * scale}
        for (decay, scale), parameters in groups.items()
    ]


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], options: OptimizerOptions) -> torch.optim.AdamW:
    """AdamW over the parameters that train."""
    return torch.optim.AdamW(parameter_groups(named, options), lr=options.lr, betas=options.betas, eps=options.eps)


def warmup_of(options: ScheduleOptions, total: int) -> int:
    """Warm-up steps of a run of `total` steps: as given, or a tenth of a run that would end before the warm-up does."""
    return options.warmup_steps if options.warmup_steps < total else total // 10


def rate_at(step: int, total: int, lr: float, options: ScheduleOptions) -> float:
    """The learning rate of step number `step` (from 0): linear warm-up from lr / warmup, then (or with it) the cosine."""
    warmup = warmup_of(options, total)
    begin = 0 if options.kind == "cosine_from_start" else warmup
    if step < warmup:
        lr = lr * (step + 1) / warmup
    if options.kind == "constant" or step < begin:
        return lr
    share = (step - begin) / max(1, total - begin)
    return lr * (options.final_share + (1 - options.final_share) * 0.5 * (1 + math.cos(math.pi * share)))


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


class MovingAverage:
    """decay * average + (1 - decay) * weights, after every step; the average of parameters (and of running statistics)."""

    def __init__(self, state: Mapping[str, Tensor], decay: float, *, warmup: bool = False) -> None:
        self.decay = decay
        self.warmup = warmup
        self.state = {name: value.detach().clone() for name, value in state.items()}

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take the values after step number `step` (from 0) in; what is no floating point number is copied."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        for name, value in state.items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach().to(self.state[name].dtype), 1 - decay)
            else:
                self.state[name].copy_(value)
