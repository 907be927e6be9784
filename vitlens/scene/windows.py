"""What is cut out of a frame to be embedded: windows of some sizes in metres, or the regions a segmenter finds; and the whole.

A window of half a metre is half a metre wide wherever it looks: depth says how many pixels that is. Its embedding goes to what
lies around its middle in space, not to the wall behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import numpy as np

from vitlens.checks import number, whole
from vitlens.errors import OptionError
from vitlens.scene.camera import Camera

Segmenter = Callable[[np.ndarray, np.ndarray], Any]
"""(RGB uint8 [h, w, 3], metres float32 [h, w] of the depth map) -> masks bool [k, h, w] of the picture's size."""
LEAST = 20
"""Pixels across below which nothing is to be recognised in a window."""
SHARP = 1 / 12
"""A window's embedding is for what lies around its middle: standard deviation of its weight, as a share of its size. The smaller,
the purer; voxels far from every window's middle take the nearest one's."""


@dataclass(frozen=True)
class Cutting:
    """How frames are cut: sizes of windows in metres, steps between them as a share of their size, and at most so many."""

    sizes: tuple[float, ...] = (0.3, 0.6, 1.2)
    step: float = 0.5
    most: int = 400
    segmenter: Segmenter | None = None
    segmenter_name: str = ""

    def __post_init__(self) -> None:
        if not self.sizes and self.segmenter is None:
            raise OptionError("--windows: at least one size in metres is needed, such as 0.3,0.6,1.2")
        for size in self.sizes:
            number("--windows", float(size), above=0)
        number("--window-step", self.step, least=0.1, most=2)
        whole("--most-windows", self.most, least=1)


@dataclass(frozen=True)
class Region:
    """A part of a frame: its box (left, top, right, bottom) in colour pixels, and whom its embedding is for.

    A window: what lies around `centre` [3] (the camera's axes, metres). A segment: its `mask`. Neither: the whole
    frame, which stands for itself and for no voxel.
    """

    box: tuple[int, int, int, int]
    level: int
    """Which of the sizes; -1 for whole frames."""
    size: float = 0.0
    centre: np.ndarray | None = None
    mask: np.ndarray | None = None


def load_segmenter(name: str) -> Segmenter:
    """The function that "module:function" names.

    Raises:
        OptionError: no such module or function, or something that cannot be called.
    """
    try:
        if ":" not in name:
            raise ValueError("there is no ':' in it")
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"--segmenter {name!r}: write it as module:function, importable from here ({error})") from error
    if not callable(found):
        raise OptionError(f"--segmenter {name!r}: a {type(found).__name__}, not a function of a picture and its depth map")
    return found


def regions(cutting: Cutting, camera: Camera, points: np.ndarray, pixels: np.ndarray, depth: np.ndarray) -> list[Region]:
    """The whole frame, then its regions.

    `points` [n, 3] are what the frame sees, in the camera's axes and metres; `pixels` RGB [h, w, 3] and `camera` are the colour
    picture's, `depth` [h, w] the depth map.
    """
    found = [Region((0, 0, camera.width, camera.height), -1)]
    if cutting.segmenter is not None:
        return found + segments(cutting.segmenter, cutting.segmenter_name, pixels, depth)
    return found + windows(cutting, camera, points)


def windows(cutting: Cutting, camera: Camera, points: np.ndarray) -> list[Region]:
    """Windows of every size around points that lie evenly on what is seen; the largest first where there are too many."""
    found: list[Region] = []
    for level, size in enumerate(cutting.sizes):
        step = cutting.step * size
        centres = _evenly(points, step)
        allowed = cutting.most // len(cutting.sizes)
        while len(centres) > allowed:
            step *= 1.15
            centres = _evenly(points, step)
        boxes = (square(camera, centre, size) for centre in centres)
        found += [Region(box, level, size, c) for box, c in zip(boxes, centres, strict=True) if box is not None]
    return found


def _evenly(points: np.ndarray, step: float) -> np.ndarray:
    """Of every cube with sides `step` that holds points, the point nearest to their mean [k, 3]."""
    if not len(points):
        return points
    _, cube, count = np.unique(np.floor(points / step).astype(np.int64), axis=0, return_inverse=True, return_counts=True)
    cube = cube.ravel()
    means = np.stack([np.bincount(cube, points[:, axis]) for axis in range(3)], axis=1) / count[:, None]
    away = ((points - means[cube]) ** 2).sum(axis=1)
    order = np.lexsort((away, cube))
    return points[order[np.searchsorted(cube[order], np.arange(len(count)))]]


def square(camera: Camera, centre: np.ndarray, size: float) -> tuple[int, int, int, int] | None:
    """The square of `size` metres around a point, moved into the picture where it looks over its edge; None if it cannot be."""
    if centre[2] <= 0:
        return None
    side = round(0.5 * (camera.fx + camera.fy) * size / centre[2])
    if side < LEAST or side > min(camera.width, camera.height):
        return None
    left, top = (
        round(focal * along / centre[2] + middle + 0.5 - side / 2)
        for focal, along, middle in ((camera.fx, centre[0], camera.cx), (camera.fy, centre[1], camera.cy))
    )
    inside = (min(max(left, 0), camera.width - side), min(max(top, 0), camera.height - side))
    if max(abs(inside[0] - left), abs(inside[1] - top)) > 0.25 * side:
        return None
    return (*inside, inside[0] + side, inside[1] + side)


def segments(segmenter: Segmenter, name: str, pixels: np.ndarray, depth: np.ndarray) -> list[Region]:
    """What a segmenter finds; segments smaller than a window may be are left out.

    Raises:
        OptionError: it gives no masks of the picture's size.
    """
    masks = np.asarray(segmenter(pixels, depth))
    if masks.size == 0:
        return []
    if masks.ndim != 3 or masks.shape[1:] != pixels.shape[:2]:
        raise OptionError(
            f"the segmenter {name or segmenter!r} gave an array of shape {list(masks.shape)}; masks [k, h, w] of the "
            f"picture's size {list(pixels.shape[:2])} are needed"
        )
    found = []
    for mask in masks.astype(bool):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) and max(np.ptp(rows), np.ptp(columns)) + 1 >= LEAST:
            box = _around(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1, pixels.shape)
            found.append(Region(box, 0, mask=mask))
    return found


def _around(left: int, top: int, right: int, bottom: int, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """A square around a box, a tenth larger, as far as the picture goes."""
    side = round(1.1 * max(right - left, bottom - top))
    across, down = (left + right) // 2, (top + bottom) // 2
    first = (max(0, across - side // 2), max(0, down - side // 2))
    return (*first, min(shape[1], first[0] + side), min(shape[0], first[1] + side))


def weights(found: Sequence[Region], camera: Camera, points: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each region the places of those of `points` [n, 3] that its embedding is for, and how much it counts there [k]."""
    columns, rows, inside = camera.pixels(points)
    out = []
    for region in found:
        if region.centre is not None:
            away = ((points - region.centre) ** 2).sum(axis=1) / (region.size * SHARP) ** 2
            near = np.flatnonzero(away < 36)
            out.append((near, np.exp(-0.5 * away[near])))
        elif region.mask is not None:
            near = np.flatnonzero(inside & region.mask[rows, columns])
            out.append((near, np.ones(len(near))))
        else:
            out.append((np.zeros(0, np.int64), np.zeros(0)))
    return out
