"""What the columns of an inertial sensor's table measure, by their names: which channel, which axis, in which unit.

Loggers write `ax`, `Accel_LN_X (m/s^2)`, `gyroscope.x`, `rotationRateY(rad/s)`, `acc_z_g`, `wx [deg/s]` ... A name is cut into
words; they say the quantity and the axis, what is left over may be its unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from vitlens.sources import Source

GRAVITY = 9.80665
"""Metres per second squared of 1 g, by definition."""
UNITS: dict[str, dict[str, float]] = {
    "accelerometer": {"m/s2": 1.0, "g": GRAVITY, "mg": GRAVITY / 1000},
    "gyroscope": {"rad/s": 1.0, "deg/s": 0.017453292519943295, "mdeg/s": 1.7453292519943296e-05},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
}
"""What 1 of each unit is in m/s², rad/s and seconds."""
CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
"""Accelerometer, then gyroscope: the rows of a sample."""
_SPELT = {
    "m/s2": ("m s2", "m s 2", "m s s", "m s -2", "ms2", "ms -2", "mps2", "meter s2", "meters s2"),
    "g": ("g", "gs", "gn", "g0"),
    "mg": ("mg", "milli g"),
    "rad/s": ("rad s", "rads", "radian s", "radians s", "rad sec", "radps", "rps", "rad s -1"),
    "deg/s": ("deg s", "degs", "dps", "degree s", "degrees s", "deg sec", "degps", "deg s -1"),
    "mdeg/s": ("mdeg s", "mdps", "mdegps"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "millis", "millisecond", "milliseconds"),
    "us": ("us", "usec", "micros", "microsecond", "microseconds"),
    "ns": ("ns", "nsec", "nanos", "nanosecond", "nanoseconds"),
}
_BY_SPELLING = {spelt: unit for unit, spellings in _SPELT.items() for spelt in spellings}
_QUANTITIES = {
    "accelerometer": {"a", "acc", "accel", "accl", "accelero", "acceleration", "accelerations", "accelerometer", "xl"},
    "gyroscope": {"g", "w", "gyr", "gyro", "gyroscope", "gyrometer", "omega", "angvel"},
}
_TURNING = ({"angular", "velocity"}, {"angular", "rate"}, {"angular", "speed"}, {"rotation", "rate"}, {"rot", "rate"})
_CLOCKS = {"time", "timestamp", "timestamps", "t", "ts", "elapsed", "sensortime", "datetime", "epoch", "unixtime", "utc"}
_OTHER = {
    "mag", "magnet", "magnetic", "magnetometer", "gravity", "grav", "attitude", "quaternion", "quat", "orientation", "euler",
    "angle", "temp", "temperature", "pressure", "roll", "pitch", "yaw", "std", "var", "rms", "bias", "offset", "delta", "jerk",
}  # fmt: skip
_WITHOUT_GRAVITY = {"linear", "user", "lin", "linacc"}
_FILLERS = {
    "cal", "calibrated", "in", "unit", "value", "axis", "sensor", "imu", "ln", "wr", "raw", "data", "motion", "device", "xyz",
}  # fmt: skip
_GLUED = re.compile(r"([a-z]+?)([xyz])")
_TURNED = re.compile(r"([xyz])(acc|accel|acceleration|gyr|gyro)")


class Column(NamedTuple):
    """What a column measures: "accelerometer", "gyroscope" or "time"; along which axis, in which unit (empty: not said)."""

    quantity: str
    axis: str = ""
    unit: str = ""
    linear: bool = False
    """An acceleration from which gravity was taken."""

    @property
    def channel(self) -> str:
        """One of `CHANNELS`, or "time"."""
        return self.quantity if self.quantity == "time" else self.quantity[0] + self.axis


def column(name: str) -> Column | None:
    """What the column of this name measures; None where it is neither acceleration, turning nor time."""
    words = _words(name)
    if _OTHER & set(words):
        return None
    words, axis = _without_axis(words)
    for quantity, known in _QUANTITIES.items():
        turning = next((pair for pair in _TURNING if pair <= set(words)), set()) if quantity == "gyroscope" else set()
        if axis and (turning or known & set(words)):
            own = turning or {next(word for word in words if word in known)}
            return Column(quantity, axis, _unit(words, own, quantity), bool(_WITHOUT_GRAVITY & set(words)))
    if axis or not words:
        return None
    clock = _CLOCKS & set(words)
    unit = _unit(words, clock, "time")
    return Column("time", unit=unit) if clock or (unit in ("s", "ms", "us", "ns") and len(words) == 1) else None


def _words(name: str) -> list[str]:
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    for mark, plain in (("²", "2"), ("⁻", "-"), ("^", ""), ("**", ""), ("µ", "u"), ("μ", "u"), ("°", " deg "), ("per", " ")):
        text = text.replace(mark, plain)
    words: list[str] = []
    for word in re.findall(r"[a-z]+2?|-?\d+", text):
        glued, turned = _GLUED.fullmatch(word), _TURNED.fullmatch(word)
        if glued and glued[1] in _QUANTITIES["accelerometer"] | _QUANTITIES["gyroscope"] | {"rate", "velocity"}:
            words += [glued[1], glued[2]]
        else:
            words += [turned[2], turned[1]] if turned else [word]
    return words


def _without_axis(words: list[str]) -> tuple[list[str], str]:
    axes = [word for word in words if word in ("x", "y", "z")]
    if len(axes) != 1:
        return words, ""
    at = words.index(axes[0])
    return words[:at] + words[at + 1 :], axes[0]


def _unit(words: Sequence[str], own: set[str], quantity: str) -> str:
    """The unit among the words beside those that name the quantity."""
    left, named = [], set(own)
    for word in words:
        if word in named:
            named.discard(word)
        elif word not in _FILLERS | _WITHOUT_GRAVITY:
            left.append(word)
    for first in range(len(left)):
        for last in range(len(left), first, -1):
            unit = _BY_SPELLING.get(" ".join(left[first:last]), "")
            if unit in UNITS[quantity]:
                return unit
    return ""


def chosen(names: Sequence[str], columns: Sequence[str] | None, source: Source) -> dict[str, int]:
    """Where each channel, and "time" if there is one, stands among a table's columns.

    `columns` picks by name: accelerometer x, y, z, gyroscope x, y, z, and before them the time where it is given. Without it,
    names decide; of accelerations with and without gravity, the one with it.

    Raises:
        InputError: a channel that several columns may be, or a name that is not there.
    """
    if columns is not None:
        wanted = dict(zip((*(["time"] if len(columns) == 7 else []), *CHANNELS), columns, strict=True))
        strange = [name for name in columns if list(names).count(name) != 1]
        if strange:
            raise source.refuse(f"no single column {strange[0]!r}; it has {', '.join(names)[:200]}")
        return {channel: list(names).index(name) for channel, name in wanted.items()}
    found: dict[str, list[int]] = {}
    known = [column(name) for name in names]
    for linear in (False, True):  # with gravity first
        several = [(i, one) for i, one in enumerate(known) if one is not None and one.linear is linear]
        if linear and any(channel in found for channel in CHANNELS[:3]):
            continue
        for place, one in several:
            found.setdefault(one.channel, []).append(place)
    if "time" in found:  # of several clocks, one that says its unit
        found["time"] = sorted(found["time"], key=lambda i: not known[i].unit)[:1]  # type: ignore[union-attr]
    for channel, places in found.items():
        if len(places) > 1:
            listed = ", ".join(names[i] for i in places)
            raise source.refuse(f"several columns that may be {channel}: {listed}", "say which six with columns=[ax, ay, ... gz]")
    return {channel: places[0] for channel, places in found.items()}
