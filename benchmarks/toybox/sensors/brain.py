"""Watched by a brain: a 128-channel EEG epoch of somebody who is shown the picture of a Toybox object.

What is seen becomes a vector of features in four steps of the visual stream (light, edges, matter, form). Each step reaches the
electrodes through a fixed linear mixing, drawn from the world's seed, with a time course of its own; 1/f noise and alpha waves
cover it. Form, the latest, does not depend on the view.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from vitlens.benchmarks.toybox.sensors.picture import picture
from vitlens.benchmarks.toybox.sensors.views import on_surface
from vitlens.benchmarks.toybox.world.stage import Stage

RATE = 1000.0
"""Hertz."""
SAMPLES = 500
CHANNELS = 128
NAMES = tuple(f"TB{i + 1}" for i in range(CHANNELS))
"""Of the Toybox's own cap, whose electrodes lie at no places of the 10-05 system."""
SIGNAL, NOISE = 5.0, 8.0
"""Microvolts: typical size of what the picture evokes, at its strongest, and of everything else."""


class Step(NamedTuple):
    """A step of the visual stream: when it answers, for how long (seconds), and where on the head (direction)."""

    peaks: tuple[float, ...]
    width: float
    place: tuple[float, float, float]


STEPS = {
    "light": Step((0.095, 0.145), 0.016, (0.0, -1.0, 0.0)),
    "edges": Step((0.115, 0.185), 0.020, (0.0, -0.9, 0.4)),
    "matter": Step((0.175, 0.250), 0.028, (0.6, -0.8, -0.1)),
    "form": Step((0.205, 0.295, 0.390), 0.038, (-0.6, -0.7, 0.2)),
}


def watch(stage: Stage, *, take: int = 0, noise: bool = True, seen: np.ndarray | None = None) -> np.ndarray:
    """Volts, float32 `[128, 500]`: half a second at 1 kHz from the moment the picture of this take appears.

    `seen` is that picture at 64 pixels, where it has been made already.
    """
    rng = stage.thing.rng("eeg", take)
    found = features(stage, picture(stage, take=take) if seen is None else seen)
    gain, late = rng.uniform(0.85, 1.15), rng.normal(0, 0.004)
    microvolts = np.zeros((CHANNELS, SAMPLES))
    for name, mixing in _mixing(stage.thing.world_seed).items():
        microvolts += np.einsum("kcf,f->ck", mixing, found[name], optimize=True) @ _courses(STEPS[name], late)
    microvolts *= SIGNAL * gain
    if noise:
        microvolts += NOISE * _background(rng)
    return (1e-6 * microvolts).astype(np.float32)


def electrodes() -> np.ndarray:
    """Places of the electrodes on the unit sphere, `[128, 3]`: x to the right, y to the nose, evenly over the upper head."""
    height = np.linspace(0.98, -0.3, CHANNELS)
    turn = np.arange(CHANNELS) * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)


# --- what is seen ---


def features(stage: Stage, seen: np.ndarray) -> dict[str, np.ndarray]:
    """The feature vector of each step from a picture `[64, 64, 3]` and what it shows, each entry about -1 to 1."""
    pixels = seen.astype(np.float32) / 255
    grey = pixels.mean(axis=2)
    return {"light": _light(grey), "edges": _edges(grey), "matter": _matter(pixels, grey), "form": _form(stage)}


def _light(grey: np.ndarray) -> np.ndarray:
    """Brightness of 8 x 8 places, `[64]`."""
    coarse = grey.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    return (4 * (coarse - coarse.mean())).ravel()


def _edges(grey: np.ndarray) -> np.ndarray:
    """Strength of four directions of edges at 6 x 6 places, `[144]`."""
    down, across = np.gradient(grey[2:-2, 2:-2])
    strength, angle = np.hypot(down, across), np.arctan2(down, across)
    fields = [strength * np.maximum(0, np.cos(2 * (angle - k * np.pi / 4))) for k in range(4)]
    energy = np.stack(fields).reshape(4, 6, 10, 6, 10).mean(axis=(2, 4))
    return (8 * (np.sqrt(energy) - np.sqrt(energy).mean())).ravel()


def _matter(pixels: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Colour, contrast, highlights and grain of the middle of the picture, `[15]`."""
    middle, inner = pixels[20:44, 20:44].reshape(-1, 3), grey[16:48, 16:48]
    grain = [np.abs(inner[k:] - inner[:-k]).mean() + np.abs(inner[:, k:] - inner[:, :-k]).mean() for k in (1, 2, 4)]
    bright = [(inner > level).mean() for level in (0.35, 0.6, 0.85)]
    colour = middle.mean(axis=0)
    parts = [
        3 * (colour - 0.5),
        8 * (colour - colour.mean()),
        6 * (middle.std(axis=0) - 0.15),
        12 * (np.array(grain) - 0.1),
        bright,
    ]
    return 1.5 * np.concatenate(parts)


def _form(stage: Stage) -> np.ndarray:
    """How the surface is spread over height and distance from the axis, and where it faces, `[64]`: the same from all sides."""
    points, normals = on_surface(stage, 1024, stage.thing.rng("form", 1))
    size = stage.thing.size
    radius = np.hypot(points[:, 0], points[:, 2]) / size
    height = points[:, 1] / size
    spread, _, _ = np.histogram2d(height, radius, bins=(8, 6), range=((0, 1), (0, 0.6)))
    facing, _, _ = np.histogram2d(height, np.abs(normals[:, 1]), bins=(4, 4), range=((0, 1), (0, 1.001)))
    shares = np.sqrt(np.concatenate([spread.ravel(), facing.ravel()]) / 1024)
    return 5 * (shares - shares.mean())


# --- how it reaches the electrodes ---


@cache
def _mixing(world_seed: int) -> dict[str, np.ndarray]:
    """For each step the weights `[peaks, 128, features]`, smooth over the head and strongest at the step's place."""
    sizes = {"light": 64, "edges": 144, "matter": 15, "form": 64}
    places = electrodes()
    apart = ((places[:, None] - places[None]) ** 2).sum(-1)
    smooth = np.exp(-apart / (2 * 0.22**2))
    smooth /= np.sqrt((smooth**2).sum(axis=1, keepdims=True))
    mixing = {}
    for place, (name, step) in enumerate(STEPS.items()):
        rng = np.random.default_rng([world_seed, 128, place])
        toward = np.array(step.place) / np.linalg.norm(step.place)
        strength = 0.15 + np.exp(-((places - toward) ** 2).sum(-1) / (2 * 0.75**2))
        weights = smooth @ rng.standard_normal((len(step.peaks), CHANNELS, sizes[name]))
        mixing[name] = weights * strength[:, None] / np.sqrt(sizes[name])
    return mixing


def _courses(step: Step, late: float) -> np.ndarray:
    """The time course of each peak, `[peaks, 500]`."""
    time = np.arange(SAMPLES) / RATE - late
    return np.stack([np.exp(-0.5 * ((time - peak) / (step.width * (1 + k / 2))) ** 2) for k, peak in enumerate(step.peaks)])


@cache
def _shaping() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectrum of 1/f noise over one second, its spread over neighbouring electrodes, and where alpha waves are strong."""
    frequency = np.fft.rfftfreq(2 * SAMPLES, 1 / RATE)
    spectrum = 1 / np.maximum(frequency, 1.0) ** 0.7
    places = electrodes()
    near = np.exp(-((places[:, None] - places[None]) ** 2).sum(-1) / (2 * 0.35**2))
    near /= np.sqrt((near**2).sum(axis=1, keepdims=True))
    return spectrum, near, np.clip(-places[:, 1], 0, 1)


def _background(rng: np.random.Generator) -> np.ndarray:
    """What goes on in a head besides, about 1 on average, `[128, 500]`: 1/f noise, shared by neighbours, and alpha waves."""
    spectrum, near, back = _shaping()
    white = rng.standard_normal((CHANNELS, SAMPLES + 1), np.float32) + 1j * rng.standard_normal(
        (CHANNELS, SAMPLES + 1), np.float32
    )
    noise = np.fft.irfft(white * spectrum, axis=1)[:, :SAMPLES]
    noise = near @ noise + 0.35 * noise
    time = np.arange(SAMPLES) / RATE
    alpha = np.sin(2 * np.pi * (rng.uniform(8.5, 11.5) * time + rng.uniform()))
    return noise / noise.std() + rng.uniform(0, 0.9) * back[:, None] * alpha
