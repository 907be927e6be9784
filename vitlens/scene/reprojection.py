"""Frames reprojected into each other under a hypothesis about poses, scale and camera: how well do the depths agree?

Under the right hypothesis a pixel of one frame, carried into another, lies at the depth that the other measured there, to
millimetres; under a wrong one it is off by decimetres, or out of the picture. No ground truth is needed for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from vitlens.errors import InputError
from vitlens.scene.camera import CONVENTIONS, DIRECTIONS, Camera, camera_to_world
from vitlens.scene.recording import Recording

POINTS = 600
"""Pixels of a frame that are carried into another; a first search takes a tenth of them."""
TOLERANCE = 0.01
"""Error, as a share of the depth, at which a pixel counts half."""
MOST_TURN = 35.0
"""Degrees between the two frames of a pair: beyond, they hardly see the same."""
GOOD = 0.45
"""A score that no wrong hypothesis reaches: more than half of what is seen agrees to a hundredth."""
ANCHORS = 12
SMALL = 0.025
"""Logarithm of a factor that is as good as 1."""
SCALES = np.append(np.geomspace(3e-4, 3e3, 120), 1.0)
"""Factors of depth against positions that are tried; also millimetres taken for metres."""


@dataclass(frozen=True)
class Hypothesis:
    """How a recording might be meant: as it is understood now, but for these.

    `scale`: depth is that many times what is read now, relative to the positions. `zoom`: focal lengths times that; with
    `magnify`, the principal point as well.
    """

    convention: str
    direction: str
    scale: float = 1.0
    zoom: float = 1.0
    magnify: bool = False

    def camera(self, camera: Camera) -> Camera:
        """The camera under this hypothesis."""
        return camera.magnified(self.zoom) if self.magnify else camera.zoomed(self.zoom)


@dataclass(frozen=True)
class Fit:
    """How well a hypothesis fits.

    `score`: mean over all carried pixels of 1 / (1 + (error / tolerance)^2), 0 for those out of the picture.
    `error`: median difference of depths in metres, and `relative`, as a share of the depth, over pixels in the picture.
    """

    score: float
    error: float
    relative: float
    seen: float
    """Share of the carried pixels that are in the picture and have a depth there."""


class Evidence:
    """Pixels of frames, to be looked up in other frames' depth maps; read once, hypotheses are held against them.

    `pairs` are (source, target) positions among the recording's frames; pairs with an unreadable or empty map are left out.
    """

    def __init__(self, recording: Recording, pairs: Sequence[tuple[int, int]], *, points: int = POINTS) -> None:
        self.recording = recording
        self.unreadable: list[tuple[int, str]] = []
        maps: dict[int, np.ndarray] = {}
        for place in sorted({place for pair in pairs for place in pair}):
            try:
                maps[place] = recording.depth(place)
            except InputError as error:
                self.unreadable.append((place, error.found))
        carried = {place: _carried(place, maps[place], points) for place in {source for source, _ in pairs} & set(maps)}
        self.pairs = [(s, t) for s, t in pairs if t in maps and len(carried.get(s, ())) >= 20]
        order = {place: at for at, place in enumerate(maps)}
        self._maps = np.stack(list(maps.values())) if maps else np.zeros((0, 1, 1), np.float32)
        chosen = [carried[source] for source, _ in self.pairs]
        self._pair = np.repeat(np.arange(len(chosen)), [len(one) for one in chosen])
        self._pixels = np.concatenate(chosen) if chosen else np.zeros((0, 3))
        self._target = np.array([order[target] for _, target in self.pairs], np.int64)
        self._few = np.concatenate([np.arange(len(one)) < points // 10 for one in chosen]) if chosen else np.zeros(0, bool)

    def now(self) -> Hypothesis:
        """The recording as it is understood."""
        return Hypothesis(self.recording.convention, self.recording.direction)

    def fit(self, hypothesis: Hypothesis) -> Fit:
        """How well the hypothesis fits, over all pairs."""
        relative, metres = self._errors(hypothesis, np.array([hypothesis.scale]), slice(None))
        return _fit_of(relative[0], metres[0])

    def fits(self, hypothesis: Hypothesis) -> list[Fit]:
        """How well the hypothesis fits each pair."""
        relative, metres = self._errors(hypothesis, np.array([hypothesis.scale]), slice(None))
        return [_fit_of(relative[0, self._pair == at], metres[0, self._pair == at]) for at in range(len(self.pairs))]

    def scores(self, hypothesis: Hypothesis, scales: np.ndarray) -> np.ndarray:
        """The score at each of the scales [s], from a tenth of the pixels."""
        relative, _ = self._errors(hypothesis, scales, self._few)
        return np.nan_to_num(1 / (1 + (relative / TOLERANCE) ** 2)).mean(axis=1)

    def parallax(self) -> float:
        """How far apart the frames of a pair are, as a share of the depth: with none, scale and direction cannot be told."""
        _, shifts = self._moves(self.now())
        depth = [np.median(self._pixels[self._pair == at, 2]) for at in range(len(self.pairs))]
        return float(np.median(np.linalg.norm(shifts, axis=1) / depth)) if depth else 0.0

    def _moves(self, hypothesis: Hypothesis) -> tuple[np.ndarray, np.ndarray]:
        """From each pair's source to its target: rotations [p, 3, 3] and shifts [p, 3] in metres."""
        unit = self.recording.pose_scale
        poses = {
            place: camera_to_world(
                np.asarray(self.recording.frames[place].pose), hypothesis.convention, hypothesis.direction, unit
            )
            for place in {place for pair in self.pairs for place in pair}
        }
        moves = np.array([np.linalg.inv(poses[target]) @ poses[source] for source, target in self.pairs]).reshape(-1, 4, 4)
        return moves[:, :3, :3], moves[:, :3, 3]

    def _errors(self, hypothesis: Hypothesis, scales: np.ndarray, which: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Differences of depth [s, n] at each scale, as a share of it and in metres; NaN out of the picture or without depth."""
        camera = hypothesis.camera(self.recording.depth_camera)
        rotations, shifts = self._moves(hypothesis)
        pair, (columns, rows, depth) = self._pair[which], self._pixels[which].T
        turned = np.einsum("nij,nj->ni", rotations[pair], camera.points(columns, rows, depth))
        moved = (turned[None] + shifts[pair] / scales[:, None, None]).reshape(-1, 3)
        at_column, at_row, inside = camera.pixels(moved)
        there = self._maps[np.tile(self._target[pair], len(scales)), at_row, at_column]
        known = inside & (there > 0)
        difference = np.where(known, np.abs(moved[:, 2] - there), np.nan)
        relative = difference / np.where(known, there, 1)
        return relative.reshape(len(scales), -1), difference.reshape(len(scales), -1) * scales[:, None]


def search(evidence: Evidence) -> tuple[Hypothesis, Fit]:
    """The best hypothesis: first only directions and axes are tried, then scales or zooms with them, then all at once.

    The first that fits well is taken; of some that fit alike, the one with least that changes.
    """
    now = evidence.now()
    plain = [replace(now, convention=c, direction=d) for c, d in product(CONVENTIONS, DIRECTIONS)]
    zooms, one = _zooms(evidence.recording.depth_camera), np.array([1.0])
    ranked: list[tuple[Fit, Hypothesis]] = []
    for scales, factors in ((one, one), (SCALES, one), (one, zooms), (SCALES, zooms)):
        found = [guess for start in plain for guess in _guesses(evidence, start, scales, factors)]
        finer = [refined(evidence, guess) for guess in found]
        ranked += [(evidence.fit(guess), guess) for guess in [*plain, *finer, *map(_rounded, finer)]]
        if max(fit.score for fit, _ in ranked) >= GOOD:
            break
    return _simplest(ranked, now)


def _guesses(evidence: Evidence, start: Hypothesis, scales: np.ndarray, zooms: np.ndarray) -> list[Hypothesis]:
    """The best scales and zooms of a coarse grid."""
    magnify = not centred(evidence.recording.depth_camera)
    zoomed = [replace(start, zoom=float(zoom), magnify=magnify) for zoom in zooms]
    table = np.stack([evidence.scores(guess, scales) for guess in zoomed])
    places = [np.unravel_index(place, table.shape) for place in np.argsort(-table, axis=None)[: min(3, table.size)]]
    return [replace(zoomed[zoom], scale=float(scales[scale])) for zoom, scale in places]


def nearby(evidence: Evidence) -> tuple[Hypothesis, Fit]:
    """The best scale or zoom, or both, around the recording as it is understood; what fits alike with less change wins."""
    now = evidence.now()
    found = [now, refined(evidence, now, zoom=False), refined(evidence, now, scale=False), refined(evidence, now)]
    return _simplest([(evidence.fit(guess), guess) for guess in [*found, *map(_rounded, found)]], now)


def _simplest(ranked: list[tuple[Fit, Hypothesis]], now: Hypothesis) -> tuple[Hypothesis, Fit]:
    """Of all that fit nearly as well as the best, the one with least that changes."""
    top = max(fit.score for fit, _ in ranked)
    good = [(fit, guess) for fit, guess in ranked if fit.score >= 0.95 * top]
    fit, chosen = min(good, key=lambda pair: (changes(pair[1], now), -pair[0].score))
    return chosen, fit


def refined(evidence: Evidence, start: Hypothesis, *, scale: bool = True, zoom: bool = True) -> Hypothesis:
    """Scale and zoom, or one of them, by ever smaller steps around a coarse guess."""
    best, score = start, -1.0
    for step in (1.08, 1.08, 1.03, 1.03, 1.01, 1.003):
        scales = best.scale * (step ** np.arange(-2.0, 3.0) if scale else np.ones(1))
        zooms = [replace(best, zoom=best.zoom * by) for by in ((1 / step, 1.0, step) if zoom else (1.0,))]
        table = np.stack([evidence.scores(one, scales) for one in zooms])
        at_zoom, at_scale = np.unravel_index(table.argmax(), table.shape)
        if table.max() > score:
            score, best = float(table.max()), replace(zooms[at_zoom], scale=float(scales[at_scale]))
    return best


def _rounded(hypothesis: Hypothesis) -> Hypothesis:
    """Without changes too small to mean anything."""
    scale, zoom = (1.0 if abs(np.log(value)) < SMALL else value for value in (hypothesis.scale, hypothesis.zoom))
    return replace(hypothesis, scale=scale, zoom=zoom)


def changes(hypothesis: Hypothesis, now: Hypothesis) -> int:
    """How many things differ."""
    turned = (hypothesis.convention != now.convention) + (hypothesis.direction != now.direction)
    return turned + (abs(np.log(hypothesis.scale)) > SMALL) + (abs(np.log(hypothesis.zoom)) > SMALL)


def centred(camera: Camera) -> bool:
    """Whether the principal point lies near the picture's middle, as every camera's does whose intrinsics fit the picture."""
    return all(abs(middle / (side - 1) - 0.5) < 0.12 for middle, side in ((camera.cx, camera.width), (camera.cy, camera.height)))


def oversize(camera: Camera) -> float:
    """How many times larger the pictures are that the principal point is in the middle of."""
    return float(np.sqrt(max(camera.cx + 0.5, 1.0) * max(camera.cy + 0.5, 1.0) * 4 / (camera.width * camera.height)))


def _zooms(camera: Camera) -> np.ndarray:
    if centred(camera):
        return np.unique(np.append(np.geomspace(0.35, 2.9, 19), 1.0))
    return 1 / oversize(camera) * np.geomspace(0.8, 1.25, 7)


def _carried(source: int, depth: np.ndarray, points: int) -> np.ndarray:
    """Columns, rows and depths [n, 3] of pixels to carry; edges, where depth jumps, are left out."""
    steps = np.maximum(np.abs(np.diff(depth, axis=0, append=depth[-1:])), np.abs(np.diff(depth, axis=1, append=depth[:, -1:])))
    rows, columns = np.nonzero((depth > 0) & (steps < 0.05 * np.maximum(depth, 1e-9)))
    chosen = np.random.default_rng(source).permutation(len(rows))[:points]
    rows, columns = rows[chosen], columns[chosen]
    return np.stack([columns, rows, depth[rows, columns]], axis=1).astype(np.float64)


def _fit_of(relative: np.ndarray, metres: np.ndarray) -> Fit:
    inside = np.isfinite(relative)
    if not inside.any():
        return Fit(0.0, float("inf"), float("inf"), 0.0)
    score = float((1 / (1 + (relative[inside] / TOLERANCE) ** 2)).sum() / len(relative))
    return Fit(score, float(np.median(metres[inside])), float(np.median(relative[inside])), float(inside.mean()))


def choose_pairs(recording: Recording) -> list[tuple[int, int]]:
    """Pairs of usable frames, near and far in time, that are turned by no more than `MOST_TURN` degrees to each other.

    The angle between two frames does not depend on the hypothesis.
    """
    usable = recording.usable
    anchors = sorted({int(place) for place in np.linspace(0, len(usable) - 1, min(ANCHORS, len(usable)))})
    found: list[tuple[int, int]] = []
    for anchor in anchors:
        gaps = [gap for power in range(12) for gap in (1 << power, -(1 << power)) if 0 <= anchor + gap < len(usable)]
        near = [gap for gap in gaps if _turn(recording, usable[anchor], usable[anchor + gap]) <= MOST_TURN]
        found += [(usable[anchor], usable[anchor + gap]) for gap in spread(near, 4)]
    return found


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly, the first and last among them."""
    if len(values) <= most:
        return list(values)
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, most)]


def _turn(recording: Recording, a: int, b: int) -> float:
    """Degrees between two frames."""
    first, second = (np.asarray(recording.frames[place].pose)[:3, :3] for place in (a, b))
    return float(np.degrees(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))
