"""Pressure: films of a pressure mat, glove or skin in kilopascal, as patches that each see their place over all of the time.

A film `[frames, h, w]` becomes a few moments of one square, each the mean of its part of time and of its place. Pressures go from
a sheet of paper to a heel: they are taken by their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.modalities.pressure_files import EXTENSIONS, check_cells, holds_rows, load_film
from vitlens.modality import Modality, Sample, register_modality
from vitlens.sources import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from vitlens.vit import ViT

UNITS = {"kPa": 1.0, "Pa": 0.001, "hPa": 0.1, "bar": 100.0, "N/cm2": 10.0, "mmHg": 0.133322387, "psi": 6.894757293}
"""Kilopascal."""
HIGHEST = 10_000.0
"""Kilopascal that no mat, glove or skin measures: the contact of a steel ball."""
TARE = 0.05
"""Of the largest value: so far below 0 a cell may stand that was set to zero under some load."""
SHIFT, GAIN = 2, 0.1
"""To train: cells of the square by which a film is moved, and how much the sensitivity of a mat differs."""


@register_modality
@dataclass(frozen=True, kw_only=True)
class Pressure(Modality):
    """Films of pressure as `moments` of `size` x `size` cells, each log(1 + p / knee) / log(1 + full / knee).

    A film that is not square keeps its form and stands in the middle. `knee` is the pressure (kPa) below which values are about
    linear, `full` the one that becomes 1. A token is a patch of `patch` x `patch` cells over all moments.
    """

    size: int = 32
    moments: int = 8
    patch: int = 8
    knee: float = 1.0
    full: float = 500.0

    name: ClassVar[str] = "pressure"
    unit: ClassVar[str] = "kilopascal, float32 [frames, h, w]"
    accepts: ClassVar[str] = (
        "a pressure film: npy, npz, csv, an array [frames, h, w] or [h, w]; whole numbers with unit= or scale="
    )
    extensions: ClassVar[tuple[str, ...]] = EXTENSIONS

    def __post_init__(self) -> None:
        for option, most in (("size", 1024), ("moments", 1024), ("patch", 1024)):
            checks.whole(f"pressure: {option}", getattr(self, option), least=1, most=most)
        for option in ("knee", "full"):
            object.__setattr__(self, option, checks.number(f"pressure: {option}", getattr(self, option), above=0))
        if self.size % self.patch:
            raise OptionError(f"pressure: size {self.size} is not a multiple of patch {self.patch}")

    def read(
        self,
        source: Any,
        *,
        unit: str | None = None,
        scale: float | None = None,
        rate: float | None = None,
        shape: Sequence[int] | None = None,
        key: str | None = None,
        format: str | None = None,
    ) -> Sample:
        """Read a film into kilopascal, float32 `[frames, h, w]`; its rate in `info["rate"]`, where it is known.

        Args:
            source: a path, binary file object or array `[frames, h, w]`, or `[h, w]` for one frame.
            unit: of the values: "kPa", "Pa", "hPa", "bar", "N/cm2", "mmHg" or "psi"; None is kPa for floats that are not whole.
            scale: of that unit per stored number, for values that a device counts in steps of its own.
            rate: frames per second.
            shape: `[h, w]` of a frame where rows of a CSV, or of an array `[frames, h * w]`, are whole frames.
            key: which array of an .npz.
            format: type of a file object whose name does not say it.

        Raises:
            InputError: no film, a unit or an order of axes that is not known, pulls instead of pressures ...
            OptionError: an option with a value that is not allowed.
        """
        if unit is not None:
            checks.one_of("pressure: unit", unit, UNITS)
        if scale is not None:
            checks.number("pressure: scale", scale, above=0)
        info = {} if rate is None else {"rate": checks.number("pressure: rate", rate, above=0)}
        cells = None if shape is None else _cells(shape)
        given = Source(source, self.accepts)
        if given.is_array:
            stored, seconds = given.array(), None
        else:
            with given.local_file(EXTENSIONS, format) as path:
                stored, seconds = load_film(path, given, key, cells)
        film = _film(given.numeric(stored), given, cells)
        if unit is None and scale is None:
            _check_unit(film, given)
        if seconds is not None and "rate" not in info:
            info["rate"] = seconds
        return Sample(_checked(film * (UNITS[unit or "kPa"] * (scale or 1.0)), given), given.name, info)

    def transform(self, sample: Sample, *, train: bool = False) -> Tensor:
        """Float32 `[moments, size, size]` in 0..1; with `train` moved, perhaps mirrored, and of another sensitivity."""
        import torch
        import torch.nn.functional as F

        film = torch.from_numpy(np.ascontiguousarray(sample.data, np.float32))
        height, width = film.shape[1:]
        longest = max(height, width)
        rows, columns = (max(1, round(self.size * side / longest)) for side in (height, width))
        x = F.adaptive_avg_pool3d(film[None], (self.moments, rows, columns))[0]
        above, left = ((self.size - side) // 2 for side in (rows, columns))
        x = F.pad(x, (left, self.size - columns - left, above, self.size - rows - above))
        if train:
            x = x.flip(-1) if torch.rand(()) < 0.5 else x
            down, right = (int(n) for n in torch.randint(-SHIFT, SHIFT + 1, (2,)))
            x = _moved(x, down, right) * (1 + GAIN * (2 * torch.rand(()) - 1))
        return ((1 + x.clamp(min=0) / self.knee).log() / math.log1p(self.full / self.knee)).clamp(max=1)

    def build_embed(self, width: int, vit: ViT) -> nn.Module:
        """`[b, moments, size, size]` -> `[b, n, width]`: patches over all moments, with learned positions."""
        from vitlens.embed import PatchEmbed

        return PatchEmbed(channels=self.moments, width=width, patch=self.patch, positions=(self.size // self.patch) ** 2)

    def example(self, seed: int = 0) -> Sample:
        """A step on a mat of 32 x 16 cells, from heel to toe; 50 frames a second."""
        return Sample(footstep(seed), f"<{self.name} example {seed}>", {"rate": 50.0})

    def write(self, sample: Sample, folder: Path, stem: str) -> Path:
        """Write a .npy of float32 kilopascal (its rate is not stored)."""
        path = Path(folder) / f"{stem}.npy"
        np.save(path, np.asarray(sample.data, np.float32))
        return path

    def describe(self, sample: Sample) -> dict[str, str]:
        film = np.asarray(sample.data)
        frames, height, width = film.shape
        rate, peak = sample.info.get("rate"), float(film.max())
        pressed = (film.max(axis=0) > 0.1 * peak).mean() if peak else 0.0
        return {
            "cells": f"{height} x {width}",
            "frames": f"{frames}" + (f" at {rate:g} Hz, {frames / rate:.2f} s" if rate else ""),
            "highest": f"{peak:.1f} kPa" if peak else "nothing pressed",
            "pressed": f"{100 * pressed:.0f} % of the cells, above a tenth of the highest",
        }

    def steps(self) -> list[str]:
        return [
            f"average the frames to {self.moments} moments, the cells to a longest side of {self.size}, centred in a square",
            f"log(1 + p / {self.knee:g} kPa) / log(1 + {self.full:g} / {self.knee:g}), at most 1",
            f"cut into patches of {self.patch} x {self.patch} cells, each over all moments",
        ]

    def draw(self, sample: Sample, axes: Axes) -> None:
        """The highest pressure of every cell."""
        shown = axes.imshow(np.asarray(sample.data).max(axis=0), cmap="magma", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.figure.colorbar(shown, ax=axes, label="kPa, the highest of all frames", fraction=0.04, pad=0.02)

    def claims(self, path: Path) -> float:
        """A quarter: the types are those of any array, and nothing in a file says that it is pressure. 0 for a text without a
        row of numbers."""
        return 0.25 * super().claims(path) if holds_rows(path) else 0.0


def _cells(shape: Any) -> tuple[int, int]:
    """The read option `shape` as (rows, columns) of a frame."""
    rows, columns = checks.numbers("pressure: shape", shape, 2)
    if min(rows, columns) < 1 or rows % 1 or columns % 1:
        raise OptionError(f"pressure: shape must be two whole numbers of 1 or more, found {shape!r}")
    return int(rows), int(columns)


def _film(stored: np.ndarray, source: Source, cells: tuple[int, int] | None) -> np.ndarray:
    """Stored numbers as float64 `[frames, h, w]`."""
    if stored.ndim == 2 and cells is not None and stored.shape != cells:
        if stored.shape[1] != math.prod(cells):
            raise source.refuse(f"rows of {stored.shape[1]} values and shape={list(cells)}, which needs {math.prod(cells)}")
        stored = stored.reshape(-1, *cells)
    film = stored[None] if stored.ndim == 2 else stored
    if film.ndim != 3:
        raise source.refuse(f"an array of shape {list(stored.shape)}", "frames come first: [frames, h, w]")
    if cells is not None and film.shape[1:] != cells:
        raise source.refuse(f"frames of {film.shape[1]} x {film.shape[2]} and shape={list(cells)}", "leave shape= out")
    first, second, third = film.shape
    if cells is None and first == second != third and first > 1:
        hint = f"[frames, h, w]; if these are frames of {second} x {third}, say shape=[{second}, {third}]"
        raise source.refuse(f"an array of shape {[first, second, third]}, whose frames may come first or last", hint)
    check_cells(second, third, source)
    return film.astype(np.float64)


def _check_unit(film: np.ndarray, source: Source) -> None:
    """Refuse whole numbers, which are a device's own steps or of a smaller unit, where no unit is said."""
    if film.any() and np.array_equal(film, np.rint(film)):
        found = f"whole numbers from {film.min():g} to {film.max():g} of unknown unit"
        raise source.refuse(found, f"unit= ({', '.join(UNITS)}), or scale= with the kilopascal of one step")


def _checked(film: np.ndarray, source: Source) -> np.ndarray:
    """Kilopascal as float32; what a tare left a little below 0 is 0."""
    lowest, highest = float(film.min()), float(film.max())
    if highest > HIGHEST:
        raise source.refuse(f"pressures up to {highest:.4g} kPa, which no mat measures", "another unit= or scale=")
    if lowest < -max(TARE * highest, 1.0):
        raise source.refuse(f"pressures down to {lowest:.4g} kPa: a mat is not pulled", "values with nothing pressed at 0")
    return film.clip(0).astype(np.float32)


def _moved(x: Tensor, down: int, right: int) -> Tensor:
    """`x [..., h, w]` moved by a few cells; what comes in is 0."""
    import torch.nn.functional as F

    height, width = x.shape[-2:]
    padded = F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def footstep(seed: int, frames: int = 40, height: int = 32, width: int = 16) -> np.ndarray:
    """Kilopascal under a foot that rolls from heel to toe, float32 `[frames, height, width]`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(float)
    time = np.linspace(0, 1, frames)[:, None, None]
    lean, weight = rng.uniform(-0.1, 0.1), rng.uniform(0.8, 1.2)
    heel, arch, ball = (
        (26.0, 7.5, 3.4, 3.0, 220, 0.05, 0.55),
        (17.0, 9.5, 4.5, 2.2, 60, 0.2, 0.7),
        (10.0, 7.0, 2.6, 4.2, 250, 0.3, 0.95),
    )
    parts = [heel, arch, ball, (4.0, 4.5, 1.6, 1.3, 200, 0.55, 1.0)]
    parts += [(4.5 + 0.7 * k, 6.8 + 1.8 * k, 1.1, 0.8, 90, 0.6, 0.98) for k in range(4)]
    film = np.zeros((frames, height, width))
    for row, column, long, wide, peak, begin, end in parts:
        pressed = np.sin(np.pi * ((time - begin) / (end - begin)).clip(0, 1))
        where = np.exp(-(((rows - row) / long) ** 2) - ((columns - column - lean * (row - 16)) / wide) ** 2)
        film += weight * peak * rng.uniform(0.8, 1.2) * pressed * where
    return (film + rng.normal(0, 0.3, film.shape)).clip(0).astype(np.float32)
