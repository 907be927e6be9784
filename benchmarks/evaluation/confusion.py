"""The confusion matrix: as a picture, and as the pairs of classes that are taken for each other most often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitlens.display.pictures import INK, save

MOST_NAMES, MOST_NUMBERS = 60, 20
"""Classes whose names fit beside the picture, and whose shares fit into it."""


def draw_confusion(classes: Sequence[str], counts: Sequence[Sequence[int]], path: Path, *, title: str = "") -> Path:
    """Write a picture of counts [c][c], each row as shares of its true class."""
    from matplotlib.figure import Figure

    table = np.asarray(counts, np.float64)
    shares = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    n = len(classes)
    side = min(max(4.5, 2.2 + 0.34 * n), 13.0)
    figure = Figure(figsize=(side + 0.8, side), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="share of the true class in percent")
    axes.set_xlabel("predicted" if n <= MOST_NAMES else f"predicted ({n} classes in label order)")
    axes.set_ylabel("true" if n <= MOST_NAMES else f"true ({n} classes in label order)")
    if n <= MOST_NAMES:
        size = 9 if n <= 25 else 6
        names = [name if len(name) <= 24 else f"{name[:23]}…" for name in classes]
        axes.set_xticks(range(n), names, rotation=90 if n > 12 else 40, ha="center" if n > 12 else "right", fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
        for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
            text.set_parse_math(False)
            text.set_rotation_mode("anchor" if n <= 12 else "default")
    if n <= MOST_NUMBERS:
        for (i, j), value in np.ndenumerate(shares):
            if value >= 0.5:
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color="white" if value > 55 else INK)
    if title:
        axes.set_title(title, fontsize=10, color=INK).set_parse_math(False)
    return save(figure, path)


def most_confused(classes: Sequence[str], counts: Sequence[Sequence[int]], most: int = 10) -> list[tuple[str, str, int, float]]:
    """(true class, predicted class, count, share in percent) of the wrong pairs, most frequent first."""
    table = np.asarray(counts, np.int64).copy()
    totals = table.sum(axis=1)
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [(classes[i], classes[j], int(table[i, j]), 100 * table[i, j] / totals[i]) for i, j in pairs if table[i, j]]
