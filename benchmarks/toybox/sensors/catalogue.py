"""The Toybox's sensors in one table: how each measures an object, writes its file, and is read by its modality.

`observe` gives the arrays of an object in memory, without files; `as_items` hands them to the modalities' readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.benchmarks.toybox.sensors import brain, heat, motion, press, sound
from vitlens.benchmarks.toybox.sensors.brain import watch
from vitlens.benchmarks.toybox.sensors.heat import warmed
from vitlens.benchmarks.toybox.sensors.picture import picture
from vitlens.benchmarks.toybox.sensors.press import set_down
from vitlens.benchmarks.toybox.sensors.recordings import (
    write_array,
    write_eeg,
    write_kelvin,
    write_millimetres,
    write_motion,
    write_ply,
    write_rgb,
    write_sound,
)
from vitlens.benchmarks.toybox.sensors.sound import strike
from vitlens.benchmarks.toybox.sensors.touch import touch
from vitlens.benchmarks.toybox.sensors.views import depth, scan
from vitlens.benchmarks.toybox.world.objects import ToyObject
from vitlens.benchmarks.toybox.world.stage import BASELINE, Stage, focal_length


@dataclass(frozen=True)
class Detail:
    """How finely is measured: pixels of a picture, a depth map, a touch, a thermal map (all square), points of a scan."""

    picture: int = 64
    depth: int = 64
    touch: int = 64
    thermal: int = 64
    points: int = 2048
    colour: bool = True
    """Whether scans have colours."""

    def __post_init__(self) -> None:
        for name in ("picture", "depth", "touch", "thermal", "points"):
            checks.whole(f"toybox: {name}", getattr(self, name), least=1, most=100_000)


@dataclass(frozen=True)
class Sensor:
    """One sensor, called as the modality that reads it."""

    modality: str
    ending: str
    """What a file's name ends with."""
    measure: Callable[[Stage, Detail, int], np.ndarray]
    write: Callable[[np.ndarray, Path], None]
    options: Callable[[Detail], dict[str, Any]] = lambda detail: {}
    """Read options that neither file nor array carries."""
    file_options: Mapping[str, Any] | None = None
    array_options: Mapping[str, Any] | None = None


SENSORS: dict[str, Sensor] = {
    sensor.modality: sensor
    for sensor in (
        Sensor("image", ".png", lambda stage, detail, take: picture(stage, size=detail.picture, take=take), write_rgb),
        Sensor(
            "point_cloud",
            ".ply",
            lambda stage, detail, take: scan(stage, points=detail.points, colour=detail.colour, take=take),
            write_ply,
        ),
        Sensor(
            "depth",
            ".png",
            lambda stage, detail, take: depth(stage, size=detail.depth, take=take),
            write_millimetres,
            options=lambda detail: {"focal_length": round(focal_length(detail.depth), 4), "baseline": BASELINE},
            file_options={"scale": 0.001},
        ),
        Sensor("tactile", ".png", lambda stage, detail, take: touch(stage, size=detail.touch, take=take), write_rgb),
        Sensor(
            "audio", ".wav", lambda stage, detail, take: strike(stage, take=take), write_sound, array_options={"rate": sound.RATE}
        ),
        Sensor(
            "eeg",
            "-epo.fif",
            lambda stage, detail, take: watch(stage, take=take),
            write_eeg,
            array_options={"rate": brain.RATE, "channels": list(brain.NAMES)},
        ),
        Sensor(
            "thermal",
            ".tiff",
            lambda stage, detail, take: warmed(stage, size=detail.thermal, take=take),
            write_kelvin,
            file_options={"scale": heat.STEP},
        ),
        Sensor(
            "imu",
            ".csv",
            lambda stage, detail, take: motion.shake_drop_roll(stage, take=take),
            write_motion,
            array_options={"rate": motion.RATE, "accel_unit": "m/s2", "gyro_unit": "rad/s"},
        ),
        Sensor(
            "pressure",
            ".npy",
            lambda stage, detail, take: set_down(stage, take=take),
            write_array,
            options=lambda detail: {"rate": press.RATE},
        ),
    )
}


def checked_sensors(names: Iterable[str] | None) -> tuple[str, ...]:
    """`names` in the table's order; None stands for all.

    Raises:
        OptionError: no such sensor.
    """
    wanted = set(SENSORS if names is None else names)
    checks.known("toybox: unknown sensors", sorted(wanted), SENSORS)
    return tuple(name for name in SENSORS if name in wanted)


def observe(
    thing: ToyObject | Stage,
    sensors: Iterable[str] | None = None,
    *,
    detail: Detail | None = None,
    take: int = 0,
    seen: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What the sensors (default: all) measure of an object, by modality, in memory; equal to what the files of take 0 hold.

    image, tactile: uint8 `[s, s, 3]`; depth: metres `[s, s]`; point_cloud: metres and rgb `[points, 6]`; audio: `[16000]` at
    16 kHz; eeg: volts `[128, 500]` at 1 kHz; thermal: kelvin `[s, s]`; imu: m/s² and rad/s `[6, 2560]` at 640 Hz; pressure:
    kilopascal `[24, 48, 48]`. Every `take` is another room, light, camera, place of touch, blow, warmth, fall and weight on the
    mat.
    `seen` saves the brain a picture: that of the same take at 64 pixels, where it has been made already.
    """
    stage = thing if isinstance(thing, Stage) else Stage(thing)
    detail = detail or Detail()
    found: dict[str, np.ndarray] = {}
    for name in checked_sensors(sensors):
        if name == "eeg":
            own = found.get("image") if detail.picture == 64 else None  # the brain sees this very picture
            found[name] = watch(stage, take=take, seen=own if own is not None else seen)
        else:
            found[name] = SENSORS[name].measure(stage, detail, take)
    return found


def as_items(observed: Mapping[str, np.ndarray], detail: Detail | None = None) -> dict[str, dict[str, Any]]:
    """What `observe` gave as items that `Modality.load` takes: {"source": array, and the read options it needs}."""
    detail = detail or Detail()
    items = {}
    for name, array in observed.items():
        sensor = SENSORS[name]
        items[name] = {"source": array, **sensor.options(detail), **(sensor.array_options or {})}
    return items
