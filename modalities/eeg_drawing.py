"""How an EEG is drawn: channels one above the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vitlens.modality import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_traces(sample: Sample, axes: Axes) -> None:
    """Up to 16 channels over seconds, with a bar for the scale."""
    from matplotlib import rcParams

    rate, begin = sample.info["rate"], sample.info.get("start", 0.0)
    offset = int(begin * rate)
    data = np.asarray(sample.data, np.float64)[:, offset : offset + max(2, int(4 * rate))]
    rows = np.unique(np.linspace(0, len(data) - 1, min(16, len(data))).round().astype(int))
    traces = data[rows] - np.median(data[rows], axis=1, keepdims=True)
    names = list(sample.info.get("channels") or map(str, range(1, len(data) + 1)))
    gap = 4 * float(np.median(traces.std(axis=1))) or float(np.abs(traces).max()) or 1.0
    seconds = begin + np.arange(traces.shape[1]) / rate
    for i, trace in enumerate(traces):
        axes.plot(seconds, trace - i * gap, linewidth=0.7, color=f"C{i % 10}")
    axes.set_yticks([-i * gap for i in range(len(rows))], [names[row] for row in rows])
    axes.set_xlim(begin, begin + len(seconds) / rate)
    axes.set_ylim(-len(rows) * gap, gap)
    axes.set_xlabel("time (s)")
    standardized = sample.info.get("unit") == "standardized"
    bar = 10.0 ** math.floor(math.log10(gap))
    bar *= 5 if gap >= 5 * bar else 2 if gap >= 2 * bar else 1
    label = f"{bar:g} deviations" if standardized else f"{1e6 * bar:g} microvolts"
    beside, ink = axes.get_yaxis_transform(), rcParams["text.color"]
    axes.plot([1.01, 1.01], [gap - bar, gap], color=ink, linewidth=2, transform=beside, clip_on=False)
    axes.text(1.02, gap - bar / 2, label, rotation=90, va="center", ha="left", transform=beside)
