"""Moved objects: mass and inertia of their meshes, and the physics of what their sensor measures."""

from __future__ import annotations

import numpy as np
import pytest

from vitlens.benchmarks.toybox import Stage, ToyObject
from vitlens.benchmarks.toybox.sensors.motion import FALL, GRAVITY, LARGEST, RATE, ROLLS, SHAKES, shake_drop_roll
from vitlens.benchmarks.toybox.world.inertia import bulk
from vitlens.benchmarks.toybox.world.primitives import ball, box, join
from vitlens.benchmarks.toybox.world.shapes import SHAPES, build


def thing(shape: str, material: str, *, size: float = 0.45) -> Stage:
    """An object of one shape, material and size."""
    own = ToyObject("x", "train", 5, shape, material, "grey", "medium", size, 0.0, 0)
    return Stage(own)


def rows(motion: np.ndarray, begin: float, end: float) -> np.ndarray:
    return motion[:, round(begin * RATE) : round(end * RATE)].astype(float)


def length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=0))


def test_mass_and_inertia_are_those_of_solids() -> None:
    brick = bulk(box(0.3, 0.2, 0.5))
    assert brick.volume == pytest.approx(0.03, rel=1e-4)
    np.testing.assert_allclose(brick.middle, [0, 0.1, 0], atol=1e-6)
    sides = np.array([0.3, 0.2, 0.5]) ** 2
    np.testing.assert_allclose(np.diag(brick.inertia), 0.03 / 12 * (sides.sum() - sides), rtol=1e-3)
    sphere = bulk(ball(0.5))
    assert sphere.volume == pytest.approx(4 / 3 * np.pi / 8, rel=0.03)
    np.testing.assert_allclose(np.diag(sphere.inertia) / sphere.volume, 0.4 * 0.25, rtol=0.03)
    two = bulk(join([box(0.2, 0.2, 0.2).move(x=-1), box(0.2, 0.2, 0.2).move(x=1).stretch(x=-1).stretch(x=-1)]))
    assert two.volume == pytest.approx(0.016, rel=1e-4), "parts add up, whichever way their faces turn"
    assert two.inertia[1, 1] == pytest.approx(0.016 * (1 + 0.04 / 6), rel=1e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_has_a_mass_and_can_turn(name: str) -> None:
    mesh = build(name, np.random.default_rng(3))
    found = bulk(mesh)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    assert 0.001 < found.volume < np.prod(high - low) * 1.001
    assert (found.middle > low).all() and (found.middle < high).all()
    principal = np.linalg.eigvalsh(found.inertia)
    assert principal[0] > 0 and principal[2] < principal[0] + principal[1] + 1e-9


def test_it_stands_falls_and_comes_to_rest() -> None:
    for stage in (thing("cube", "wood"), thing("bottle", "rubber"), thing("chair", "metal")):
        motion = shake_drop_roll(stage)
        assert motion.shape == (6, 2560) and motion.dtype == np.float32
        still = rows(motion, 0, SHAKES - 0.01)
        assert length(still[:3]).mean() == pytest.approx(GRAVITY, abs=0.4)
        assert still[1].mean() > 9 and length(still[3:]).max() < 0.1
        falling = rows(motion, FALL + 0.01, FALL + 0.15)
        assert length(falling[:3]).mean() < 0.5, "nothing is felt in free fall"
        assert np.abs(motion[:3]).max() > 5 * GRAVITY and np.abs(motion[:3]).max() <= LARGEST[0] + 0.01
        assert np.abs(motion[3:]).max() <= LARGEST[1] + 0.001
        assert np.array_equal(motion, shake_drop_roll(stage)) and not np.array_equal(motion, shake_drop_roll(stage, take=1))


def test_what_is_heavy_is_shaken_less_and_turns_less() -> None:
    light, heavy = (shake_drop_roll(thing("cube", material)) for material in ("fabric", "metal"))
    push, twist = (SHAKES, SHAKES + 0.13), (SHAKES + 0.39, SHAKES + 0.52)
    assert np.ptp(rows(light, *push)[0]) > 3 * np.ptp(rows(heavy, *push)[0])
    assert np.ptp(rows(light, *twist)[3]) > 3 * np.ptp(rows(heavy, *twist)[3])
    small, large = (shake_drop_roll(thing("cube", "wood", size=size)) for size in (0.2, 0.8))
    assert np.ptp(rows(small, *push)[0]) > 3 * np.ptp(rows(large, *push)[0])


def test_soft_things_give_and_do_not_bounce() -> None:
    hard, soft = (shake_drop_roll(thing("ball", material)) for material in ("glass", "fabric"))
    window = (FALL + 0.15, ROLLS[0] - 0.05)
    peaks = [rows(motion, *window)[1].max() for motion in (hard, soft)]
    assert peaks[0] > 2.5 * peaks[1]
    flying = [(length(rows(motion, FALL + 0.3, ROLLS[0] - 0.05)[:3]) < 4).mean() for motion in (hard, soft)]
    assert flying[0] > 0.5 > 0.1 > flying[1]


def test_a_ball_rolls_as_a_ball_and_a_cube_does_not() -> None:
    stage = thing("ball", "stone")
    motion = shake_drop_roll(stage)
    spin = -rows(motion, ROLLS[0] + 0.05, ROLLS[0] + 0.95)[4]
    seconds = np.arange(len(spin)) / RATE
    radius = stage.thing.size / 2
    gained = np.polyfit(seconds, spin, 1)[0] * radius
    downhill = 5 / 7 * GRAVITY * np.sin(np.deg2rad(5))
    assert gained == pytest.approx(downhill, rel=0.35), "rolling costs something, and the ball may be a little flat"
    blocks = rows(shake_drop_roll(thing("cube", "stone")), ROLLS[0] + 0.05, ROLLS[0] + 0.95)[4]
    assert np.diff(spin[::32]).min() > -0.15 and blocks.max() > 0.2 > -0.2 > blocks.min(), "one gets faster, one rocks"
