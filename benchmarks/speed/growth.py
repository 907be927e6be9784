"""How cost grows: seconds at rising sizes, and the slope of their line in a log-log plot - 1 is linear, 2 is quadratic.

Small sizes show what a call costs whatever it holds; the slope is that of the upper half of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitlens.benchmarks.speed.figures import Run, Scope, in_turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDS = 2


@dataclass(frozen=True)
class Curve:
    """Seconds of one thing at rising sizes, the shortest of all rounds."""

    name: str
    unit: str
    """What the sizes count."""
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Of the line through the upper half of the sizes, both axes logarithmic."""
        half = slice(len(self.sizes) // 2 - (len(self.sizes) < 4), None)
        return float(np.polyfit(np.log(self.sizes[half]), np.log(self.seconds[half]), 1)[0])

    def to_dict(self) -> dict[str, Any]:
        """The curve as JSON types."""
        return {**asdict(self), "slope": self.slope}

    def draw(self, axes: Axes) -> None:
        """Draw it on both axes logarithmic, with the line whose slope is told."""
        axes.loglog(self.sizes, self.seconds, "o-", color="#2a6f97", markersize=4)
        axes.set_title(f"{self.name}: slope {self.slope:.2f}", fontsize=9)
        axes.set_xlabel(self.unit, fontsize=8)
        axes.set_ylabel("seconds", fontsize=8)
        axes.tick_params(labelsize=7, which="both")


def curves(scope: Scope) -> Iterator[Curve]:
    """All four, in about a minute on two cores that are free."""
    yield tokens(scope)
    yield batch(scope)
    yield items(scope)
    yield rows(scope)


def _measured(name: str, unit: str, sizes: Sequence[int], run_of: Callable[[int], Run], scope: Scope) -> Curve:
    seconds = in_turns(*map(run_of, sizes), rounds=ROUNDS, device=scope.device)
    return Curve(name, unit, tuple(sizes), tuple(seconds))


@torch.inference_mode()
def tokens(scope: Scope) -> Curve:
    """One block of a ViT-L on one item: products grow with the tokens, attention with their square."""
    from vitlens.vit_blocks import Block

    block = Block(width=1024, heads=16, mlp_width=4096).to(scope.device).eval()

    def run_of(size: int) -> Run:
        given = torch.randn(1, size, 1024, device=scope.device)
        return lambda: block(given)

    return _measured("tokens of one item, a block of ViT-L", "tokens", (64, 128, 256, 512, 1024, 2048), run_of, scope)


def batch(scope: Scope) -> Curve:
    """The Toybox's picture tower on pictures that are preprocessed already."""
    import vitlens

    model = vitlens.load("vitlens-toybox", modalities=["image"], device=scope.device)
    reading = model.modality("image")
    ready = [reading.transform(reading.example(seed)) for seed in range(64)]
    run_of = lambda size: lambda: model.embed("image", ready[:size])  # noqa: E731
    return _measured("pictures in one batch, Toybox", "pictures", (1, 2, 4, 8, 16, 32, 64), run_of, scope)


def items(scope: Scope) -> Curve:
    """`encode` from arrays to embeddings, in batches of 32."""
    import vitlens

    model = vitlens.load("vitlens-toybox", modalities=["image"], device=scope.device)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(128)]
    run_of = lambda size: lambda: model.encode({"image": pictures[:size]}, num_workers=0)  # noqa: E731
    return _measured("pictures through encode, Toybox", "pictures", (8, 16, 32, 64, 128), run_of, scope)


def rows(scope: Scope) -> Curve:
    """A query of an index of float32 vectors of 128 values; above 20,000 rows it no longer looks at each (extra `index`)."""
    from vitlens.index import Index, Rows, Term
    from vitlens.space import EmbeddingSpace
    from vitlens.vectors import unit

    space, random = EmbeddingSpace("growth", 128), np.random.default_rng(0)
    sizes = (1000, 4000, 16_000, 64_000)
    query = unit(random.standard_normal((1, 128)))[0]
    with tempfile.TemporaryDirectory() as folder:

        def run_of(size: int) -> Run:
            index = Index.create(Path(folder) / str(size), space)
            names = [str(number) for number in range(size)]
            with index.bulk():
                index.add_rows(Rows(space, unit(random.standard_normal((size, 128))), ["image"] * size, names))
            return lambda: index.search(Term(query, "image"), space, k=10, calibrate="none")

        return _measured("rows of an index, one query", "rows", sizes, run_of, scope)
