"""ModEmbeds shared by several modalities: a sensor's tensor becomes tokens [b, n, d]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Normal numbers with mean 0; none on the meta device, where models are built to be filled: arithmetic there would spend
    seconds on importing torch's compiler."""
    numbers = torch.empty(*shape)
    return numbers if numbers.is_meta else std * numbers.normal_()


class ModEmbed(nn.Module):
    """Base of ModEmbeds. `input_ndim` counts the dimensions of a batch; one more means several views (clips, frames) per item."""

    input_ndim: int
    any_length: ClassVar[int | None] = None
    """The dimension of a batch that may have any size in an exported graph (points of a cloud); None: only the batch's own."""

    def onnx_operators(self) -> Mapping[Any, Callable[..., Any]]:
        """Own torch operators -> onnxscript functions for them, for `vitlens export`."""
        return {}

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens [b, n, d] before positions are added, and the positions ([n, d] or [b, n, d]) or None."""
        raise TypeError(f"{type(self).__name__} must define split(x) -> (tokens, positions or None)")

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, n, d], positions added."""
        tokens, positions = self.split(x)
        return tokens if positions is None else tokens + positions


class PatchEmbed(ModEmbed):
    """Cut a map into patches with one convolution: [b, c, h, w] -> [b, n, d], rows first.

    Without positions this is the patch embedding of a plain ViT; with `positions=n` n learned positions are added.
    """

    input_ndim = 4
    pictures: ClassVar[bool] = False
    """Whether the maps are pictures in the colours of the world, for `model.patches: image`."""

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        patch: int,
        stride: int | None = None,
        positions: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if positions is not None:
            self.pos_emb = nn.Parameter(normal(positions, width, std=width**-0.5))
        self.conv1 = nn.Conv2d(channels, width, kernel_size=patch, stride=stride or patch, bias=bias)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens = self.conv1(x.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)
        return tokens, getattr(self, "pos_emb", None)


class SignalEmbed(ModEmbed):
    """A convolution over time across all channels: [b, channels, samples] -> tokens [b, n, d], with learned positions."""

    input_ndim = 3

    def __init__(self, *, channels: int, samples: int, width: int, window_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(normal((samples - window_size) // stride + 1, width, std=width**-0.5))
        self.proj = nn.Conv1d(channels, width, kernel_size=window_size, stride=stride)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.proj(x.to(self.proj.weight.dtype)).transpose(1, 2), self.pos_emb
