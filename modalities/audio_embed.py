"""The ModEmbed of sound."""

from __future__ import annotations

from torch import Tensor

from vitlens.embed import PatchEmbed


class AudioEmbed(PatchEmbed):
    """Overlapping patches of a spectrogram [b, frames, mel_bins] -> tokens [b, n, d], frequency-major, with learned positions."""

    input_ndim = 3

    def __init__(self, *, mel_bins: int, frames: int, patch: int, stride: int, width: int) -> None:
        positions = ((mel_bins - patch) // stride + 1) * ((frames - patch) // stride + 1)
        super().__init__(channels=1, width=width, patch=patch, stride=stride, positions=positions)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().split(x.transpose(1, 2).unsqueeze(1))
