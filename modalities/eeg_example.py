"""An EEG to try things with: somebody looks at a picture; made from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vitlens.modalities.eeg_places import positions

RATE = 1000.0
"""Hertz."""


def imitated(names: Sequence[str] | None, channels: int, seconds: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Names of the channels, and volts [channels, samples] after a picture: 1/f background, alpha at the back of the head, and
    the answer to the picture.
    """
    rng = np.random.default_rng(seed)
    names, places = _electrodes(names, channels)
    time = np.arange(round(RATE * seconds)) / RATE
    centres = rng.standard_normal((10, 3))
    spread = np.exp(-(((places[:, None] - centres / np.linalg.norm(centres, axis=1, keepdims=True)) / 0.9) ** 2).sum(-1))
    noise = spread @ rng.standard_normal((10, len(time))) + 0.25 * rng.standard_normal((len(names), len(time)))
    frequency = np.fft.rfftfreq(len(time), 1 / RATE)
    noise = np.fft.irfft(np.fft.rfft(noise) / np.maximum(frequency, 0.7) ** 0.8, len(time))
    back = np.clip(-places[:, 1:2], 0, 1)  # in units of the head's radius, y points to the nose
    alpha = back * np.sin(2 * np.pi * rng.uniform(9, 11) * time + rng.uniform(0, 2 * np.pi)) * (1 + 0.4 * np.sin(4 * time))
    bumps = zip((1, -1.6, 2), (0.10, 0.17, 0.32), (0.02, 0.025, 0.06), strict=True)
    evoked = back * sum(a * np.exp(-(((time - t - rng.normal(0, 0.006)) / w) ** 2)) for a, t, w in bumps)
    noise /= 0.5 * noise.std() + 0.5 * noise.std(axis=1, keepdims=True)
    microvolts = 10 * noise + 6 * alpha + 7 * evoked
    return names, (1e-6 * microvolts).astype(np.float32)


def _electrodes(names: Sequence[str] | None, channels: int) -> tuple[list[str], np.ndarray]:
    """Names and places [channels, 3] on the unit sphere (x to the right, y to the nose), of the 10-05 system where known."""
    known = positions()
    if names is None:
        system = [
            name for name in known if not name.endswith("h") and name not in ("T3", "T4", "T5", "T6", "M1", "M2", "A1", "A2")
        ]
        first = min(channels, 86)  # the 10-10 system; after it come the places between
        names = [system[i] for i in np.linspace(0, 85, first).round().astype(int)]
        names += [
            system[i] for i in np.linspace(86, len(system) - 1, min(channels - first, len(system) - 86)).round().astype(int)
        ]
        names += [f"E{i + 1}" for i in range(len(names), channels)]
    turn = np.arange(len(names)) * 2.4
    height = np.linspace(0.9, -0.3, len(names))
    places = np.stack([np.cos(turn) * np.sqrt(1 - height**2), np.sin(turn) * np.sqrt(1 - height**2), height], axis=1)
    for i, name in enumerate(names):
        if name in known:
            places[i] = known[name] / np.linalg.norm(known[name])
    return list(names), places
