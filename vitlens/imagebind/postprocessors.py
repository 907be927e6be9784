"""The last step of ImageBind's embeddings: unit length, then a factor per modality that makes cosines into logits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGEBIND_FACTORS = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}
"""ImageBind's fixed factors (imagebind_model.py); vision has none, text's is learned there."""
LARGEST = 100.0


class Normalize(nn.Module):
    """Unit length along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=self.dim)


class LearnableLogitScaling(nn.Module):
    """Multiply by a factor, at most `max_logit_scale`: a learned one, or a constant, which is not part of the state dict."""

    def __init__(self, logit_scale_init: float = 1 / 0.07, learnable: bool = True, max_logit_scale: float = LARGEST) -> None:
        super().__init__()
        self.logit_scale_init = float(logit_scale_init)
        self.learnable = learnable
        self.max_logit_scale = max_logit_scale
        logarithm = torch.tensor(math.log(self.logit_scale_init))
        if learnable:
            self.log_logit_scale = nn.Parameter(logarithm)
        else:
            self.register_buffer("log_logit_scale", logarithm, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.learnable:
            return x * self.log_logit_scale.exp().clamp(max=self.max_logit_scale)
        return x * min(self.logit_scale_init, self.max_logit_scale)

    def extra_repr(self) -> str:
        learnable, most = self.learnable, self.max_logit_scale
        return f"logit_scale_init={self.logit_scale_init:g}, learnable={learnable}, max_logit_scale={most:g}"


def postprocessors(keys: Iterable[str], logit_scale: float) -> nn.ModuleDict:
    """For every key what follows its encoder: vision is of length 1, text and the sensors ImageBind lacks of `logit_scale`."""
    made: dict[str, nn.Module] = {}
    for key in keys:
        scaling = LearnableLogitScaling(IMAGEBIND_FACTORS.get(key, logit_scale), learnable=False)
        made[key] = Normalize() if key == "vision" else nn.Sequential(Normalize(), scaling)
    return nn.ModuleDict(made)
