"""The ModEmbed of thermal maps."""

from __future__ import annotations

from torch import Tensor

from vitlens.embed import PatchEmbed


class ThermalEmbed(PatchEmbed):
    """Patches of a map in 0..1, normalised here and not before, so that the tensors stay those of ImageBind."""

    def __init__(self, *, mean: float, std: float, width: int, patch: int, positions: int) -> None:
        super().__init__(channels=1, width=width, patch=patch, positions=positions)
        self.mean, self.std = mean, std

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().split((x - self.mean) / self.std)
