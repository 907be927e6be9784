"""The ModEmbed of EEG."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitlens.embed import ModEmbed


class EEGEmbed(ModEmbed):
    """A convolution over time across all channels: [b, channels, samples] -> tokens [b, n, d], with learned positions."""

    input_ndim = 3

    def __init__(self, *, channels: int, samples: int, width: int, window_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.randn((samples - window_size) // stride + 1, width) * width**-0.5)
        self.proj = nn.Conv1d(channels, width, kernel_size=window_size, stride=stride)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.proj(x.to(self.proj.weight.dtype)).transpose(1, 2), self.pos_emb
