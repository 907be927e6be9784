"""A sensor whose preprocessing and ModEmbed do not fit each other is told so, by both sides, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitlens.embed import SignalEmbed
from vitlens.encoder import check_embed
from vitlens.errors import ModalityError
from vitlens.modality import Modality, Sample


class Coil(Modality):
    """Four coils, 40 samples of each."""

    name = "coil"

    def __init__(self, change: Callable[[Tensor], Any] = lambda x: x) -> None:
        self.change = change

    def read(self, source: Any) -> Sample:
        return Sample(source, "array")

    def transform(self, sample: Sample, *, train: bool = False) -> Any:
        return self.change(torch.from_numpy(sample.data))

    def example(self, seed: int = 0) -> Sample:
        return Sample(np.random.default_rng(seed).random((4, 40), np.float32), "example")

    def write(self, sample: Sample, folder: Any, stem: str) -> Any:
        raise OSError("nothing is written here")


def signal(channels: int = 4, width: int = 32) -> nn.Module:
    return SignalEmbed(channels=channels, samples=40, width=width, window_size=8, stride=4)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: torch.stack([x, x, x])], ids=["one view", "three views"])
def test_what_fits_passes(change: Callable[[Tensor], Tensor]) -> None:
    check_embed(Coil(change), signal(), 32)


@pytest.mark.parametrize(
    ("change", "embed", "message"),
    [
        (lambda x: x.numpy(), signal(), "transform gives a ndarray; a torch tensor is needed"),
        (lambda x: x[:, : 30 + int(10 * x[0, 0])], signal(), r"transform gives \[4, 38\] and \[4, 34\] of two examples"),
        (lambda x: x.flatten(), signal(), r"transform gives \[160\]; its ModEmbed SignalEmbed takes 2 dimensions \(or 3, views"),
        (lambda x: torch.cat([x, x], -1), signal(), r"SignalEmbed does not take what transform gives, \[4, 80\]: .*19.*9"),
        (lambda x: x, signal(channels=3), r"does not take what transform gives, \[4, 40\]: .*3 channels"),
        (lambda x: x, signal(width=40), r"makes \[2, 9, 40\] of \[2, 4, 40\]; tokens \[2, n, 32\] are needed"),
        (lambda x: x, nn.Identity(), r"Identity makes \[2, 4, 40\]"),
        (lambda x: x, nn.Flatten(), r"Flatten makes \[2, 160\]"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[Tensor], Any], embed: nn.Module, message: str) -> None:
    with pytest.raises(ModalityError, match=f"coil: .*{message}"):
        check_embed(Coil(change), embed, 32)
