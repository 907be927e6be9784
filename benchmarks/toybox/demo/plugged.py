"""The demo's last part: a language model and a painter that know only pictures, given what other sensors measured.

The lenses are plugged in as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vitlens.benchmarks.toybox.world.objects import ToyObject
    from vitlens.model import ViTLens

NEEDED = ("transformers", "diffusers")
MIXED = 3
"""Mixtures shown."""


@dataclass(frozen=True)
class Plugged:
    """What came out for the shown objects, in their order; of a mixture the ranged and the touched object, and the picture."""

    shown: list[int]
    said: dict[str, list[str]]
    painted: dict[str, np.ndarray]
    mixtures: list[tuple[int, int, np.ndarray]]


def can_plug() -> bool:
    """Whether the libraries of host and painter are installed."""
    return all(find_spec(name) for name in NEEDED)


def plug(
    model: ViTLens,
    things: Sequence[ToyObject],
    items: Mapping[str, Sequence[Any]],
    embeddings: Mapping[str, Tensor],
    shown: Sequence[int],
) -> Plugged:
    """Let the shipped host describe, and the shipped painter paint, the shown ones of `things` by every sense's file."""
    from vitlens.benchmarks.toybox.demo.describe import ask, talking_host
    from vitlens.benchmarks.toybox.demo.paint import mixed_with, paint, painting_decoder
    from vitlens.benchmarks.toybox.training.host import QUESTIONS

    host, decoder = talking_host(model), painting_decoder(model)
    question = QUESTIONS["everything"][0][0]
    said = {name: ask(host, question, {name: [items[name][i] for i in shown]}) for name in host.streams if name in items}
    rows = torch.tensor(list(shown))
    others = mixed_with(list(things))
    pairs = [(i, others[i]) for i in list(shown)[:MIXED]]
    halves = [model.compose([embeddings["depth"][i], embeddings["tactile"][j]]) for i, j in pairs]
    made = paint(decoder, torch.cat([*(embeddings[name][rows] for name in said), torch.stack(halves)]))
    count = len(rows)
    painted = {name: made[place * count : (place + 1) * count] for place, name in enumerate(said)}
    return Plugged(list(shown), said, painted, [(*pair, one) for pair, one in zip(pairs, made[len(said) * count :], strict=True)])
