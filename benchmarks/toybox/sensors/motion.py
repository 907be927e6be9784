"""Moved: what an inertial sensor on a Toybox object measures while the object is shaken, dropped and rolled.

    0 to 1 s    a hand pushes along its three axes, then twists about them: mass and moments of inertia
    1 to 2 s    it falls onto the floor and bounces: how much it gives, how long the contact lasts, how it rings
    2 to 4 s    it rolls down a gentle slope, first about its upright axis, then about the one across: its outline

Mass and inertia are those of the solid mesh. Rolling is a body of one degree of freedom without slip, on its convex hull.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vitlens.benchmarks.toybox.sensors.sound import decay_rates, modes
from vitlens.benchmarks.toybox.world.inertia import Bulk, bulk
from vitlens.benchmarks.toybox.world.materials import MATERIALS
from vitlens.benchmarks.toybox.world.primitives import rotation, unit
from vitlens.benchmarks.toybox.world.stage import Stage

RATE = 640.0
"""Hertz."""
SAMPLES = 2560
GRAVITY = 9.80665
"""m/s²."""
LARGEST = (200 * GRAVITY, 35.0)
"""What the sensor can show: m/s², rad/s (2,000 degrees per second)."""
NOISE, BIAS = (0.05, 0.006), (0.06, 0.008)
"""Standard deviations: m/s², rad/s; and how far a sensor is off zero."""
BLUR = 1e-3
"""Seconds: standard deviation of the sensor's answer to a blow (its filter of about 160 Hz)."""
SPOT = unit(np.array([0.35, 0.25, 0.9]))
"""Where the sensor sits: at the outermost point in this direction of the object's own axes."""
BOUNCE = {
    "wood": 0.50, "metal": 0.62, "glass": 0.66, "rubber": 0.80, "stone": 0.40, "fabric": 0.08, "plastic": 0.58, "ceramic": 0.54,
}  # fmt: skip
"""Share of the speed that is left after a blow on a wooden floor, about as ball drops show it."""
BURST = 0.13
"""Seconds of a push."""
SHAKES, FALL, ROLLS = 0.12, 1.0, (2.0, 3.0)
"""When the pushes begin, the fall, the two rolls (seconds)."""
ROUNDED = np.deg2rad(4.0)
"""Radians over which every edge is rounded, so that a ball of flat faces rolls like one."""
ANGLES = 720
"""Of an outline."""
FINE = 2
"""Steps of the rolling between two samples."""


class _Body(NamedTuple):
    """An object with its sensor: kilograms, kg m² about its middle (object's axes), metres."""

    mass: float
    inertia: np.ndarray
    spot: np.ndarray
    """From the centre of mass to the sensor."""
    hull: np.ndarray
    """Vertices of the convex hull, from the centre of mass."""
    bounce: float
    contact: float
    """Seconds that a blow lasts."""
    slack: float
    """Radians over which its edges are rounded."""


def shake_drop_roll(stage: Stage, *, take: int = 0) -> np.ndarray:
    """Float32 `[6, 2560]` at 640 Hz: accelerometer (m/s²) and gyroscope (rad/s) along the object's own axes (y up, z front).

    Steps of 0.01 m/s² and 0.001 rad/s; `take` counts repetitions.
    """
    rng = stage.thing.rng("imu", take)
    body = _body(stage, rng)
    force, turning = np.zeros((2, SAMPLES, 3))
    force[:, 1] = GRAVITY
    _shake(body, force, turning, rng)
    _drop(stage, body, force, turning, rng)
    for begin, axes in zip(ROLLS, ((2, 0, 1), (1, 2, 0)), strict=True):
        _roll(body, begin, axes, force, turning, rng)
    off = rotation("x", rng.normal(0, 0.03)) @ rotation("y", rng.normal(0, 0.03)) @ rotation("z", rng.normal(0, 0.03))
    seen = []
    for rows, noise, bias, most, digits in zip((force, turning), NOISE, BIAS, LARGEST, (2, 3), strict=True):
        rows = rows @ off.T + rng.normal(0, bias, 3) + rng.normal(0, noise, rows.shape)
        seen.append(np.round(rows.clip(-most, most), digits).T)
    return np.concatenate(seen).astype(np.float32)


def _body(stage: Stage, rng: np.random.Generator) -> _Body:
    thing, material = stage.thing, MATERIALS[stage.thing.material]
    own: Bulk = bulk(stage.form)
    vertices = thing.size * (stage.form.vertices.astype(np.float64) - own.middle)
    mass = material.density * own.volume * thing.size**3
    return _Body(
        mass=mass,
        inertia=material.density * thing.size**5 * own.inertia,
        spot=vertices[(vertices @ SPOT).argmax()],
        hull=_hull(vertices),
        bounce=BOUNCE[thing.material] * rng.uniform(0.94, 1.06),
        contact=(0.0016 + 3 * material.contact) * mass**0.05,
        slack=ROUNDED + 0.1 * material.loss,
    )


def _hull(vertices: np.ndarray) -> np.ndarray:
    from scipy.spatial import ConvexHull

    return vertices[ConvexHull(vertices).vertices]


def _at_sensor(body: _Body, spin: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """What turning at `spin` (rad/s) and `twist` (rad/s²) adds at the sensor `[n, 3]`."""
    return np.cross(twist, body.spot) + np.cross(spin, np.cross(spin, body.spot))


# --- shaken ---


def _shake(body: _Body, force: np.ndarray, turning: np.ndarray, rng: np.random.Generator) -> None:
    """Three pushes and three twists. A heavier thing is taken with a stronger hand: with the root of its mass."""
    hand = 22.0 * body.mass**0.5 * rng.uniform(0.95, 1.05)
    arm = 0.15 * np.ptp(body.hull, axis=0).max()
    count = round(BURST * RATE)
    phase = np.pi * (np.arange(count) + 0.5) / count
    bump, speed = np.sin(phase) ** 4, 4 * np.sin(phase) ** 3 * np.cos(phase)
    pull = 12 * np.sin(phase) ** 2 * np.cos(phase) ** 2 - 4 * np.sin(phase) ** 4
    scale = np.pi / BURST  # of each derivative by time
    for place in range(6):
        first = round((SHAKES + BURST * place) * RATE)
        rows, axis = slice(first, first + count), place % 3
        strength = rng.uniform(0.93, 1.07)
        if place < 3:
            force[rows, axis] += strength * hand / (body.mass + 0.2) * pull / 4
            continue
        most = strength * hand * arm / (body.inertia[axis, axis] + 4e-3) / 4  # rad/s² that pull = 4 stands for
        angle = np.eye(3)[axis]
        spin, twist = most / scale * speed[:, None] * angle, most * pull[:, None] * angle
        turning[rows] += spin
        lean = most / scale**2 * bump
        upright = np.array([rotation("xyz"[axis], -a) @ (0, GRAVITY, 0) for a in lean])
        force[rows] = upright + _at_sensor(body, spin, twist)


# --- dropped ---


def _drop(stage: Stage, body: _Body, force: np.ndarray, turning: np.ndarray, rng: np.random.Generator) -> None:
    """A fall of a hand's breadth or two, nearly upright, up to five blows, and rest."""
    time = np.arange(SAMPLES) / RATE
    down = (time >= FALL) & (time < ROLLS[0] - 0.02)
    lean = [rotation(axis, rng.normal(0, 0.05)) for axis in "xz"]
    pose = lean[0] @ lean[1]  # object's axes to the room's
    back = np.linalg.inv(body.inertia)
    height, now = rng.uniform(0.16, 0.24), FALL
    speed, spin = 0.0, np.zeros(3)  # downwards, of the middle; in the object's axes
    flight = np.sqrt(2 * height / GRAVITY)
    force[down], turning[down] = 0, 0
    rings = _ringing(stage, rng)
    for blow in range(6):
        flying = (time >= now) & (time < min(now + flight, ROLLS[0] - 0.02))
        turning[flying] = spin
        force[flying] = _at_sensor(body, spin, np.zeros(3))
        now, speed = now + flight, speed + GRAVITY * flight
        pose = pose @ _turned(spin * flight)
        if now > ROLLS[0] - 0.05:
            return
        up = pose.T @ (0, 1, 0)
        if blow == 5 or speed < 0.12:
            break
        lowest = body.hull[(body.hull @ up).argmin()]
        arm = np.cross(lowest, up)
        toward = speed - np.cross(spin, lowest) @ up
        impulse = (1 + body.bounce) * max(toward, 0.05) / (1 / body.mass + arm @ back @ arm)
        change = back @ arm * impulse
        width = np.hypot(0.3 * body.contact, BLUR)
        pulse = np.exp(-0.5 * ((time - now) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        force += impulse / body.mass * pulse[:, None] * up + np.cross(change, body.spot) * pulse[:, None]
        force += impulse / body.mass * rings(time - now)
        speed, spin = speed - impulse / body.mass, (spin + change) * 0.9
        flight = max(-2 * speed / GRAVITY, 0.01)
    rest = (time >= now) & (time < ROLLS[0] - 0.02)
    fade = np.exp(-(time[rest] - now) / 0.05)[:, None]
    turning[rest] = spin * fade
    force[rest] += up * GRAVITY


def _turned(angles: np.ndarray) -> np.ndarray:
    """The rotation by a vector of radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(angles).as_matrix()


def _ringing(stage: Stage, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """What the sensor feels of the body's own modes after a blow of 1 m/s, `[n, 3]` of seconds; of stiff bodies nothing."""
    material = MATERIALS[stage.thing.material]
    frequency = modes(stage)[:4]
    frequency = frequency[frequency < 0.45 * RATE]
    decay = decay_rates(material, frequency)
    filtered = np.exp(-0.5 * (2 * np.pi * frequency * BLUR) ** 2)
    ways = unit(rng.standard_normal((len(frequency), 3)) * (0.5, 1, 0.5))
    soft = 0.12 * 2 * np.pi * frequency / (1 + (2.2 * frequency * material.contact) ** 2) * filtered

    def felt(seconds: np.ndarray) -> np.ndarray:
        after = seconds.clip(0)[:, None]
        swing = soft * np.exp(-decay * after) * np.sin(2 * np.pi * frequency * after)
        return (swing * (seconds[:, None] >= 0) * (seconds[:, None] < 0.5)) @ ways

    return felt


# --- rolled ---


def _roll(
    body: _Body, begin: float, axes: tuple[int, int, int], force: np.ndarray, turning: np.ndarray, rng: np.random.Generator
) -> None:
    """Pushed and let go on a slope, about the last of `axes`; the first points downhill, the second up."""
    outline, spot = body.hull[:, axes[:2]], body.spot[list(axes[:2])]
    around = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    # Turned by -a, a point (x, y) stands at height y cos a - x sin a.
    height = -(outline[:, 1, None] * np.cos(around) - outline[:, 0, None] * np.sin(around)).min(axis=0)
    height = _rounded(height, body.slack)
    slope, bend = _derivatives(height)
    inertia = body.inertia[axes[2], axes[2]] / body.mass
    angle, spin, twist = _rolling(body, height, slope, bend, inertia, rng)
    at = angle / (2 * np.pi / ANGLES)
    h, dh, ddh = (np.interp(at, np.arange(ANGLES), table, period=ANGLES) for table in (height, slope, bend))
    tilt = _TILT
    forward = h * twist + dh * spin**2 - GRAVITY * np.sin(tilt)
    upward = dh * twist + ddh * spin**2 + GRAVITY * np.cos(tilt)
    cos, sin = np.cos(angle), np.sin(angle)
    # Into the object's axes: turned back by +a. It turns about -z of (forward, up, z).
    first = cos * forward - sin * upward - twist * -spot[1] - spin**2 * spot[0]
    second = sin * forward + cos * upward - twist * spot[0] - spin**2 * spot[1]
    rows = slice(round(begin * RATE), round(begin * RATE) + len(angle))
    force[rows], turning[rows] = 0, 0
    force[rows, axes[0]], force[rows, axes[1]], turning[rows, axes[2]] = first, second, -spin


_TILT = np.deg2rad(5.0)


def _rounded(table: np.ndarray, slack: float) -> np.ndarray:
    """Smoothed around the circle by a Gaussian of `slack` radians."""
    waves = np.arange(len(table) // 2 + 1)
    return np.fft.irfft(np.fft.rfft(table) * np.exp(-0.5 * (waves * slack) ** 2), len(table))


def _derivatives(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second by the angle."""
    waves = 1j * np.arange(len(table) // 2 + 1)
    spectrum = np.fft.rfft(table)
    return np.fft.irfft(waves * spectrum, len(table)), np.fft.irfft(waves**2 * spectrum, len(table))


def _rolling(
    body: _Body, height: np.ndarray, slope: np.ndarray, bend: np.ndarray, inertia: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angle, rad/s and rad/s² at every sample of a second.

    Per kilogram: (i + h² + h'²) a'' = -g cos(t) h' + g sin(t) h - (h + h'') h' a'² - losses, with h(a) the height of the middle.
    A face that lands loses what its blow takes; rolling itself costs by the material's loss.
    """
    mass = inertia + height**2 + slope**2
    drive = GRAVITY * (np.sin(_TILT) * height - np.cos(_TILT) * slope)
    turn = (height + bend) * slope
    # A kink that turns the slope by d costs d²/2 of the mass: the blow's angular momentum about the new edge.
    landing = (1 - 0.6 * body.bounce) * np.sqrt(np.pi) * body.slack * np.maximum(bend, 0) ** 2
    drag = GRAVITY * height * 0.02 * (1 + 20 * (body.slack - ROUNDED))
    tables = [table.tolist() for table in (mass, drive, turn, landing, drag)]
    low = np.flatnonzero((height < np.roll(height, 1)) & (height <= np.roll(height, -1)))
    start = int(low[height[low].argmin()]) if len(low) else 0
    angle, spin = start * 2 * np.pi / ANGLES, float(rng.uniform(0.75, 0.95) / height[start])
    step, found = 1 / RATE / FINE, []
    scale = ANGLES / (2 * np.pi)
    for tick in range(round((1.0 - 0.02) * RATE) * FINE):
        at = int(angle * scale) % ANGLES
        m, d, t, k, r = (table[at] for table in tables)
        away = k * abs(spin) * spin + r * max(-1.0, min(1.0, 8 * spin))
        twist = (d - t * spin * spin - away) / m
        if tick % FINE == 0:
            found.append((angle, spin, twist))
        spin += step * twist
        spin = max(-60.0, min(60.0, spin))
        angle += step * spin
    angles, spins, twists = np.array(found).T
    return angles, spins, twists
