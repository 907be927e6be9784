"""Pictures: a sample beside what the model gets of it, and similarities as a heatmap."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlens.disk import atomic
from vitlens.modality import Modality, Sample
from vitlens.sources import suffix_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from torch import Tensor

FORMATS = ("png", "pdf", "svg", "jpg", "webp")
MOST_LABELS, MOST_NUMBERS, MOST_TILES = 60, 14, 9
INK = "#22303c"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font does not have
        figure.savefig(part, format=suffix_of(path), facecolor="white")
    return path


def info_picture(modality: Modality, sample: Sample, tensor: Tensor, path: Path) -> Path:
    """Write a picture of `sample`: left as its modality draws it, right the preprocessed `tensor`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.4), dpi=120, layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, wspace=0.04)).flat
    _heading(left, _short(Path(sample.source).name or sample.source, 60), modality.unit)
    modality.draw(sample, left.add_subplot())
    low, high = tensor.min().item(), tensor.max().item()
    span = f"{low:.3g} to {high:.3g}" if tensor.is_floating_point() else f"{low} to {high}"
    _heading(right, "what the model gets", f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}, {span}")
    draw_tensor(tensor, right, up=str(modality.options().get("up", "z")))
    return save(figure, path)


def sample_picture(modality: Modality, sample: Sample, *, dark: bool = False) -> bytes:
    """A PNG of `sample` as its modality draws it, without a ground of its own: for a light or a dark page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = "#e4e9ee" if dark else INK
    inks: dict[Any, Any] = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    sizes: dict[Any, Any] = {"font.size": 9, "xtick.labelsize": 8, "ytick.labelsize": 7}
    with rc_context({**inks, **sizes, "axes.facecolor": "none", "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(4.2, 3), dpi=160, layout="constrained")
        modality.draw(sample, figure.add_subplot())
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", transparent=True)
    return drawn.getvalue()


def _heading(figure: Figure | SubFigure, title: str, below: str) -> None:
    text = figure.suptitle(f"{title}\n{textwrap.shorten(below, 64, placeholder=' ...')}", fontsize=10, color=INK)
    text.set_parse_math(False)


def draw_tensor(tensor: Tensor, figure: Figure | SubFigure, *, up: str = "z") -> None:
    """Draw a preprocessed tensor by its shape: token ids, points, channels over time, one or several maps."""
    values = tensor.detach().cpu().numpy()
    if values.ndim == 1:
        _draw_numbers(values, figure.add_subplot())
    elif values.ndim == 2 and values.shape[1] in (3, 6) and len(values) >= 32:
        _draw_points(values, figure, up)
    else:
        _draw_maps(_maps(values.astype(np.float32)), figure)


def _draw_numbers(values: np.ndarray, axes: Axes) -> None:
    if values.dtype.kind in "iu" and len(values) <= 256:
        rows = [" ".join(f"{v:>5}" for v in values[at : at + 7]) for at in range(0, len(values), 7)]
        axes.text(0.5, 0.5, "\n".join(rows), family="monospace", fontsize=9, ha="center", va="center", transform=axes.transAxes)
        axes.axis("off")
    else:
        axes.plot(values, color=INK, linewidth=0.8)


def _draw_points(values: np.ndarray, figure: Figure | SubFigure, up: str) -> None:
    axes: Any = figure.add_subplot(projection="3d")
    shown = values[:: max(1, len(values) // 8192)].astype(np.float32)
    xyz = np.roll(shown[:, :3], 2 - "xyz".index(up), axis=1) if up in ("x", "y", "z") else shown[:, :3]
    look = {"c": shown[:, 3:].clip(0, 1)} if shown.shape[1] == 6 else {"c": xyz[:, 2], "cmap": "viridis"}
    axes.scatter(*xyz.T, s=3, linewidths=0, **look)
    axes.set_box_aspect(np.maximum(np.ptp(xyz, axis=0), 1e-6))
    axes.tick_params(labelsize=7)


def _maps(values: np.ndarray) -> list[np.ndarray]:
    """The maps of a tensor: [h, w] of numbers, or [h, w, 3] of colours in 0..1."""
    if values.ndim == 2:
        return [values]
    if values.ndim == 3 and values.shape[0] == 3 and values.shape[1] == values.shape[2]:
        if (values[0] == values[1]).all() and (values[0] == values[2]).all():
            return [values[0]]
        return [((values - values.min()) / max(float(np.ptp(values)), 1e-9)).transpose(1, 2, 0)]
    if values.ndim == 3:
        return list(values)
    return [part for view in values for part in _maps(view)]


def _draw_maps(maps: list[np.ndarray], figure: Figure | SubFigure) -> None:
    shown = maps if len(maps) <= MOST_TILES else [maps[i] for i in np.linspace(0, len(maps) - 1, MOST_TILES).astype(int)]
    tall = all(m.ndim == 2 and m.shape[0] > m.shape[1] for m in shown)  # time goes down: lay it across
    wide = tall or shown[0].shape[1] > 1.5 * shown[0].shape[0]
    columns = 1 if wide and len(shown) <= 4 else int(np.ceil(np.sqrt(len(shown))))
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    low, high = np.percentile(np.concatenate([m.ravel() for m in shown]), (2, 98))  # a few odd values must not hide the rest
    image = None
    for axes, values in zip(grid.flat, shown, strict=False):
        square = values.shape[0] == values.shape[1]
        image = axes.imshow(
            values.T if tall else values,
            vmin=low,
            vmax=high,
            cmap="magma" if tall else "viridis",
            aspect="equal" if square else "auto",
            origin="lower" if tall else "upper",
            interpolation="nearest",
        )
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    if shown[0].ndim == 2 and image is not None:
        figure.colorbar(image, ax=grid, fraction=0.03, pad=0.02, extend="both").ax.tick_params(labelsize=7)


def heatmap(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], path: Path, *, title: str = "") -> Path:
    """Write cosine similarities [n, m] as a heatmap with the names of rows and columns."""
    from matplotlib.figure import Figure

    n, m = matrix.shape
    names = max([len(_short(name)) for name in rows] if n <= MOST_LABELS else [4])
    width = min(3.0 + 0.08 * names + 0.5 * m, 16.0)
    height = min(2.6 + 0.4 * n, 16.0)
    figure = Figure(figsize=(max(width, 5.0), max(height, 3.6)), dpi=120, layout="constrained")
    draw_heatmap(matrix, rows, columns, figure.add_subplot(), figure)
    if title:
        figure.suptitle(title, fontsize=10, color=INK).set_parse_math(False)
    return save(figure, path)


def draw_heatmap(
    matrix: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: Axes,
    figure: Figure | SubFigure,
    *,
    label: str = "cosine",
) -> None:
    """Draw similarities on axes; numbers stand in the cells when there is room."""
    n, m = matrix.shape
    image = axes.imshow(matrix, cmap="viridis", aspect="equal" if max(n, m) <= 4 * min(n, m) else "auto")
    figure.colorbar(image, ax=axes, label="cosine", fraction=0.04, pad=0.02)
    for count, names, axis in ((n, rows, axes.yaxis), (m, columns, axes.xaxis)):
        if count > MOST_LABELS:
            axis.set_label_text(f"{count} items")
            continue
        axis.set_ticks(range(count), [_short(name) for name in names], fontsize=9 if count <= 30 else 6)
        for text in axis.get_ticklabels():
            text.set_parse_math(False)
    if m <= MOST_LABELS and max(map(len, map(_short, columns)), default=0) > 4:
        axes.tick_params(axis="x", rotation=40)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")
    if max(n, m) <= MOST_NUMBERS:
        middle = (float(matrix.min()) + float(matrix.max())) / 2
        for (i, j), value in np.ndenumerate(matrix):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value < middle else "black")


def _short(name: str, most: int = 28) -> str:
    """A name for an axis: cut in the middle."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2 - 1) :]}"
