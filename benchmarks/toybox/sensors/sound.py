"""Struck: the sound of a hammer on a Toybox object, by modal synthesis.

Every mode is a decaying sine. Shape and size set their frequencies (bars, plates, shells and blocks have different series),
stiffness and density the pitch, the loss factor how fast they fade, and the softness of the contact how many are excited at all.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from vitlens.benchmarks.toybox.world.materials import MATERIALS, Material
from vitlens.benchmarks.toybox.world.shapes import SHAPES
from vitlens.benchmarks.toybox.world.stage import Stage

RATE = 16000
"""Hertz."""
SECONDS = 1.0
MODES = 24


def strike(stage: Stage, *, take: int = 0) -> np.ndarray:
    """A blow and its ringing, float32 `[16000]` in -1..1 in steps of 16 bits, at 16 kHz; `take` counts blows."""
    rng = stage.thing.rng("audio", take)
    material = MATERIALS[stage.thing.material]
    frequency = modes(stage) * rng.normal(1, 0.004, MODES)
    decay = decay_rates(material, frequency)
    heard = frequency < 0.47 * RATE
    loudness = _excitation(material, frequency, rng) * heard
    ringing = _ringing(loudness, frequency, decay, rng.uniform(-0.3, 0.3, MODES))
    blow = _blow(material, rng)
    sound = ringing / max(np.abs(ringing).max(), 1e-9) + _blow_share(material) * blow / np.abs(blow).max()
    sound *= rng.uniform(0.45, 0.95) * min(1.0, 0.35 + 0.1 * np.log10(material.stiffness / 1e6)) / np.abs(sound).max()
    start = int(rng.uniform(0.01, 0.06) * RATE)
    heard_sound = np.zeros(int(RATE * SECONDS))
    heard_sound[start:] = sound[: len(heard_sound) - start]
    heard_sound += 10 ** rng.uniform(-3.4, -2.7) * rng.standard_normal(len(heard_sound))
    return (np.rint(heard_sound.clip(-1, 1) * 32767) / 32768).astype(np.float32)


def modes(stage: Stage) -> np.ndarray:
    """Frequencies in hertz, `[24]` in ascending order: the series of the body times a pitch of material and size."""
    thing = stage.thing
    material = MATERIALS[thing.material]
    sides = np.sort(stage.form.extent().astype(np.float64))[::-1]
    series = _series(SHAPES[thing.shape].body, sides)
    # No two classes of shapes ring alike; this is what is left of their differences besides the body's kind and proportions.
    own = np.random.default_rng([7, thing.shape_id]).uniform(0.94, 1.06, len(series))
    series = np.sort(series * own)[:MODES]
    pitch = 230.0 / thing.size * (material.sound_speed / 4000) ** 0.5
    return pitch * series / series[0]


def _series(body: str, sides: np.ndarray) -> np.ndarray:
    """Mode frequencies relative to one another, of a body with these three sides."""
    long, middle, short = sides
    if body == "bar":  # free-free bending, and twisting
        k = np.arange(1, 17)
        return np.concatenate([((2 * k + 1) / 3) ** 2, 1.7 * k])
    if body == "plate":
        m, n = np.meshgrid(np.arange(1, 7), np.arange(1, 7))
        return ((m / long) ** 2 + (n / middle) ** 2).ravel()
    if body == "shell":  # rings like a bell: two neighbouring modes of each number of nodes
        k = np.arange(2, 2 + MODES // 2)
        return np.concatenate([(k / 2) ** 1.7, (k / 2) ** 1.7 * (1.012 + 0.05 * (1 - short / long))])
    steps = np.array(np.meshgrid(*[np.arange(4)] * 3)).reshape(3, -1)[:, 1:]
    return np.sqrt(((steps / sides[:, None]) ** 2).sum(axis=0))


def decay_rates(material: Material, frequency: np.ndarray) -> np.ndarray:
    """Per second: what the material loses (pi * loss factor * frequency), and what the air takes away as sound."""
    return np.pi * material.loss * frequency + 2.2 + 0.0006 * frequency


def _excitation(material: Material, frequency: np.ndarray, rng: Generator) -> np.ndarray:
    """How strongly each mode is struck: a soft contact spares the high ones, the place of the blow some of all."""
    soft = 1 / (1 + (2.2 * frequency * material.contact) ** 2)
    place = np.abs(np.sin(np.pi * rng.uniform(0.1, 0.45) * np.arange(1, MODES + 1))) + 0.08
    return soft * place * rng.uniform(0.6, 1.4, MODES)


def _ringing(loudness: np.ndarray, frequency: np.ndarray, decay: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Sum of decaying sines `[16000]`; a power of e at every sample is a coarse one times a fine one, so this is one product."""
    rate = (2j * np.pi * frequency - decay) / RATE
    coarse = np.exp(rate[:, None] * np.arange(0, int(RATE * SECONDS), 125))
    fine = np.exp(rate[:, None] * np.arange(125))
    return ((loudness * np.exp(1j * phase))[:, None] * coarse).T.dot(fine).imag.ravel()


def _blow(material: Material, rng: Generator) -> np.ndarray:
    """The noise of the contact itself: a short burst, the duller the softer."""
    from scipy.signal import lfilter

    length = int(RATE * SECONDS)
    seconds = np.arange(length) / RATE
    fade = np.exp(-seconds / (0.002 + 4 * material.contact))
    keep = np.exp(-2 * np.pi * min(0.4 / material.contact, 0.4 * RATE) / RATE)
    return lfilter([1 - keep], [1, -keep], rng.standard_normal(length)) * fade


def _blow_share(material: Material) -> float:
    """Loudness of the contact's noise beside the ringing: soft things hardly ring."""
    return float(np.clip(0.12 + 0.9 * material.loss, 0, 0.9))
