"""The last step of ImageBind's embeddings: unit length, then a factor per modality that makes cosines into logits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGEBIND_FACTORS = {"audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}
"""ImageBind's fixed factors (imagebind_model.py); vision has none, text's is learned."""
LARGEST = 100.0


class Normalize(nn.Module):
    """Unit length along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=self.dim)


class LogitScaling(nn.Module):
    """Multiply by a constant factor, at most `max_logit_scale`. It is not part of the state dict: it comes with the model."""

    def __init__(self, factor: float, *, max_logit_scale: float = LARGEST) -> None:
        super().__init__()
        self.factor = float(factor)
        self.max_logit_scale = max_logit_scale

    @property
    def log_logit_scale(self) -> Tensor:
        """Natural logarithm of the factor, where ImageBind's users look for it."""
        return torch.tensor(math.log(self.factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * min(self.factor, self.max_logit_scale)

    def extra_repr(self) -> str:
        return f"factor={self.factor:g}, max_logit_scale={self.max_logit_scale:g}"


def postprocessors(keys: Iterable[str], logit_scale: float) -> nn.ModuleDict:
    """For every key what follows its encoder: vision is of length 1, text and the sensors ImageBind lacks of `logit_scale`."""
    made: dict[str, nn.Module] = {}
    for key in keys:
        scaling = LogitScaling(IMAGEBIND_FACTORS.get(key, logit_scale))
        made[key] = Normalize() if key == "vision" else nn.Sequential(Normalize(), scaling)
    return nn.ModuleDict(made)
