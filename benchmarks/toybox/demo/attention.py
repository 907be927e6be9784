"""Where the host's Q-Former looks: how much of its attention lies on the class token, for pictures and for what sensors measured.

Of pictures it learned to find the class token among 65; a lens whose class state is no picture's is looked past (docs/tokens.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitlens.adapters.chat.qformer import QFormerHost
from vitlens.benchmarks.toybox.demo.describe import talking_host
from vitlens.benchmarks.toybox.demo.tables import percent, words
from vitlens.benchmarks.toybox.sensors.drawn import Drawn
from vitlens.benchmarks.toybox.training.host import QUESTIONS
from vitlens.display.table import Table
from vitlens.model import ViTLens

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

BATCH = 56


@dataclass(frozen=True)
class Attended:
    """The share of the last cross attention that lies on the class token, of one sensor's items, one number each."""

    model: str
    sensor: str
    shares: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the items."""
        return float(np.mean(self.shares))


def attended(model: ViTLens, drawn: Drawn, *, name: str) -> list[Attended]:
    """What the shipped host looks at among all tokens of what `model`'s lenses give, sensor by sensor, pictures first."""
    host = talking_host(model, look="all")
    names = [sensor for sensor in host.streams if sensor in drawn.arrays]
    return [Attended(name, sensor, tuple(class_shares(host, {sensor: drawn.column(sensor)}))) for sensor in names]


def class_shares(host: QFormerHost, inputs: Mapping[str, Sequence[Any]]) -> list[float]:
    """Items of one stream -> of each the share of the last cross attention, over heads and queries, on the first token."""
    [(name, items)] = inputs.items()
    question = QUESTIONS["everything"][0][0]
    shares: list[float] = []
    for start in range(0, len(items), BATCH):
        part = list(items[start : start + BATCH])
        with torch.inference_mode(), _recorded(host.model.qformer) as weights:
            host.soft_tokens([question] * len(part), {name: part})
        shares += weights[-1][..., 0].mean(dim=(1, 2)).tolist()
    return shares


@contextmanager
def _recorded(qformer: Any) -> Iterator[list[Tensor]]:
    """The weights [b, heads, queries, tokens] of the last cross attention, of every pass inside this block."""
    found: list[Tensor] = []
    attention = [layer.crossattention.attention for layer in qformer.encoder.layer if hasattr(layer, "crossattention")][-1]
    usual = qformer.config._attn_implementation
    qformer.set_attn_implementation("eager")  # the others do not tell their weights
    hook = attention.register_forward_hook(lambda _module, _inputs, out: found.append(out[1]))
    try:
        yield found
    finally:
        hook.remove()
        qformer.set_attn_implementation(usual)


def attention_table(rows: Sequence[Attended]) -> Table:
    """A row for each sensor, a column for each model."""
    models, sensors = list(dict.fromkeys(row.model for row in rows)), list(dict.fromkeys(row.sensor for row in rows))
    means = {(row.model, row.sensor): percent(row.mean) for row in rows}
    lines = [(words(sensor), *(means.get((model, sensor), "-") for model in models)) for sensor in sensors]
    count = len(rows[0].shares)
    note = f"Percent of the Q-Former's last cross attention, mean over heads, queries and {count} objects; looking at all tokens."
    return Table(("from", *models), lines, "Attention on the class token", note, numbers=models)


def attention_figure(rows: Sequence[Attended]) -> Figure:
    """The items of each sensor as dots, with their mean, and a panel for each model."""
    from matplotlib.figure import Figure

    models, sensors = list(dict.fromkeys(row.model for row in rows)), list(dict.fromkeys(row.sensor for row in rows))
    figure = Figure(figsize=(4.2 * len(models) + 1.2, 0.42 * len(sensors) + 1.3), layout="constrained", dpi=160)
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    chance = np.random.default_rng(0)
    for panel, model in zip(panels, models, strict=True):
        for row in (row for row in rows if row.model == model):
            y = sensors.index(row.sensor)
            colour = "#2a6f97" if row.sensor == "image" else "#c0392b"
            spread = y + chance.uniform(-0.22, 0.22, len(row.shares))
            panel.plot(row.shares, spread, ".", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
            panel.plot([row.mean] * 2, [y - 0.34, y + 0.34], color=colour, linewidth=2.5)
        panel.set(xlim=(-0.02, 1.02), title=model, xlabel="share of the attention on the class token")
        panel.grid(axis="x", alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(sensors)), [words(sensor) for sensor in sensors])
    panels[0].invert_yaxis()
    return figure
