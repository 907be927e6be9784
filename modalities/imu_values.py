"""Values of an inertial sensor: in m/s² and rad/s, at even steps, and whether they can be what they are said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.modalities.imu_columns import CHANNELS, GRAVITY, UNITS, chosen, column
from vitlens.modalities.imu_tables import Table
from vitlens.sources import Source

GROUPS = {"accelerometer": CHANNELS[:3], "gyroscope": CHANNELS[3:]}
OPTIONS = {"accelerometer": "accel_unit", "gyroscope": "gyro_unit", "time": "time_unit"}
SI = {"accelerometer": "m/s2", "gyroscope": "rad/s"}
SLOWEST, FASTEST = 0.5, 20_000
"""Hertz of the loggers there are, by which a clock's unit may be known."""
PAUSE, GAP = 0.5, 3.5
"""Seconds without a value that end a piece; and how many times as long as the usual step a gap is."""
HIGHEST, SUSTAINED = {"accelerometer": 2000 * GRAVITY, "gyroscope": 400.0}, 50.0
"""More than any inertial sensor can measure, and rad/s that nothing keeps up which a sensor is tied to."""


class Motion(NamedTuple):
    """Float32 [6, samples] in m/s² and rad/s, at `rate` hertz."""

    data: np.ndarray
    rate: float
    start: float
    """Seconds from the first sample to the start."""
    remarks: list[str]
    pieces: Sequence[tuple[float, float]] = ()
    """From when to when each piece lasts, in seconds after the first row; none where there is no pause."""


def checked_units(**said: Any) -> dict[str, str | float | None]:
    """The units that a caller says, by quantity: a name, or what one count is in m/s² or rad/s.

    Raises:
        OptionError: neither.
    """
    for quantity, option in OPTIONS.items():
        unit = said[quantity]
        if unit is None or (isinstance(unit, str) and unit in UNITS[quantity]):
            continue
        if isinstance(unit, str) or quantity == "time":
            raise OptionError(f"imu: {option} must be {checks.either(UNITS[quantity])}, found {unit!r}")
        checks.number(f"imu: {option} (a unit's name, or {SI[quantity]} per count)", unit, above=0)
    return said


def motion(
    table: Table,
    source: Source,
    *,
    columns: Sequence[str] | None,
    units: Mapping[str, str | float | None],
    rate: float | None,
    start: float,
    missing: str,
) -> Motion:
    """A table's six channels in their units, on one clock.

    Raises:
        InputError: channels that are not there or may be several, units or a rate that nobody says, values that cannot be ...
    """
    if table.names is None:
        names = list(columns or CHANNELS)
        if len(names) != len(table.columns):
            wrong = f"{len(table.columns)} channels, but {'columns=' if columns else 'the six are'} {', '.join(names)}"
            raise source.refuse(wrong, "say what they are with columns=[time, ax, ay, az, gx, gy, gz]")
        places = chosen(names, None, source)
    else:
        names = table.names
        places = chosen(names, columns, source)
    remarks: list[str] = []
    values = np.full((len(CHANNELS), len(table.columns[0]) if table.columns else 0), np.nan)
    for quantity, channels in GROUPS.items():
        lacking = [channel for channel in channels if channel not in places]
        if len(lacking) == len(channels) and missing == "zero" and quantity == "gyroscope":
            remarks.append("no gyroscope: its channels are zeros")
            values[3:] = 0
            continue
        if lacking:
            hint = "missing='zero' puts zeros" if len(lacking) == 3 and quantity == "gyroscope" else "name them with columns="
            raise source.refuse(f"no {', '.join(lacking)} of the {quantity} among {', '.join(names)[:200]}", hint)
        for channel in channels:
            values[CHANNELS.index(channel)] = table.columns[places[channel]]
        said = [column(names[places[channel]]) for channel in channels]
        values[_rows(quantity)] *= _scales(quantity, said, units[quantity], values[_rows(quantity)], source, remarks)[:, None]
        if any(one is not None and one.linear for one in said):
            remarks.append("an acceleration from which gravity was taken")
    clock = _clock(table, names, places, units["time"], source, remarks)
    if clock is None:
        source.numeric(values)
        if rate is None:
            raise source.refuse("no column of time", "say its hertz, for example rate=100")
        found = Motion(values, rate, start, remarks)
    else:
        found = _even(clock, values, start, source, remarks)
        if rate is not None and abs(rate - found.rate) > 0.05 * found.rate:
            raise source.refuse(f"a file of {found.rate:.4g} Hz, but rate={rate:g}", "leave rate= out")
    _check_values(found.data, source)
    return found._replace(data=found.data.astype(np.float32))


def _rows(quantity: str) -> slice:
    return slice(0, 3) if quantity == "accelerometer" else slice(3, 6)


def _scales(
    quantity: str, said: Sequence[Any], option: str | float | None, values: np.ndarray, source: Source, remarks: list[str]
) -> np.ndarray:
    """What to multiply each of three rows with."""
    own = [one.unit if one is not None else "" for one in said]
    if option is None and not all(own):
        length = float(np.nanmedian(np.sqrt((values**2).sum(axis=0)))) if np.isfinite(values).any() else 0.0
        known = checks.either(repr(unit) for unit in UNITS[quantity])
        hint = f"say {OPTIONS[quantity]}={known}, or how many {SI[quantity]} one count is"
        raise source.refuse(f"{quantity} values of no stated unit (of length {length:.3g} by the median)", hint)
    if option is None:
        return np.array([UNITS[quantity][unit] for unit in own])
    wanted = option if isinstance(option, str) else f"{option:g} {SI[quantity]}"
    if any(unit and unit != option for unit in own):
        stated = next(unit for unit in own if unit and unit != option)
        remarks.append(f"the {quantity}'s columns say {stated}, {OPTIONS[quantity]} says {wanted}: taken as the latter")
    return np.full(3, UNITS[quantity][option] if isinstance(option, str) else float(option))


def _check_values(data: np.ndarray, source: Source) -> None:
    """Refuse what cannot be acceleration and turning in the units that were said."""
    source.numeric(data)
    for quantity, most in HIGHEST.items():
        highest = float(np.abs(data[_rows(quantity)]).max())
        if highest > most:
            other = {"accelerometer": "counts, or mg", "gyroscope": "counts, or deg/s"}[quantity]
            found = f"{quantity} values up to {highest:.3g} {SI[quantity]}, more than any sensor measures: probably {other}"
            raise source.refuse(found, f"say {OPTIONS[quantity]}=")
    if (data.max(axis=1) == data.min(axis=1)).all() and data.shape[1] > 1:
        raise source.refuse("a flat recording: every channel is constant")
    if (usual := float(np.median(np.sqrt((data[3:] ** 2).sum(axis=0))))) > SUSTAINED:
        raise source.refuse(f"a turning of {usual:.3g} rad/s throughout, probably deg/s", "say gyro_unit='deg/s'")
    low, middle, high = np.percentile(np.sqrt((data[:3] ** 2).sum(axis=0)), (25, 50, 75))
    if middle > 6 * GRAVITY and abs(middle / GRAVITY**2 - 1) < 0.15:
        raise source.refuse(f"an acceleration of {middle / GRAVITY:.3g} g at rest, probably m/s²", "say accel_unit='m/s2'")
    if low > 0.9 and high < 1.1:
        raise source.refuse(f"an acceleration of {middle:.3g} m/s² at rest, probably g", "say accel_unit='g'")


# --- time ---


def _clock(
    table: Table, names: Sequence[str], places: Mapping[str, int], option: Any, source: Source, remarks: list[str]
) -> np.ndarray | None:
    """Seconds of every row after the first, or None where there is no clock."""
    if "time" not in places:
        return None
    raw, said = table.columns[places["time"]], column(names[places["time"]])
    if raw.dtype.kind == "M":
        seconds = (raw - raw[0]) / np.timedelta64(1, "ns") * 1e-9 if len(raw) else np.empty(0)
    else:
        if not len(raw) or not np.isfinite(raw[0]):
            raise source.refuse(f"a column {names[places['time']]!r} that holds no numbers", "one of times")
        unit = option or (said.unit if said is not None else "") or _guessed_unit(raw, source, remarks)
        seconds = (raw - raw[0]) * UNITS["time"][unit]
    if not np.isfinite(seconds).all():
        raise source.refuse(f"{int((~np.isfinite(seconds)).sum())} rows without a time")
    if (back := np.flatnonzero(np.diff(seconds) < 0)).size:
        raise source.refuse(f"a time that runs backwards at row {back[0] + 2}", "one recording, its rows in the order of time")
    return seconds


def _guessed_unit(raw: np.ndarray, source: Source, remarks: list[str]) -> str:
    """The one unit by which the rows follow each other as fast as a logger's do.

    Raises:
        InputError: none, or several.
    """
    steps = np.diff(raw)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    fits = [unit for unit, size in UNITS["time"].items() if step and SLOWEST <= 1 / (step * size) <= FASTEST]
    if len(fits) != 1:
        hint = f"say time_unit={checks.either(repr(unit) for unit in UNITS['time'])}"
        raise source.refuse(f"times of no stated unit, {step:g} apart", hint)
    remarks.append(f"times of no stated unit, {step:g} apart: taken as {fits[0]}")
    return fits[0]


def _even(seconds: np.ndarray, values: np.ndarray, start: float, source: Source, remarks: list[str]) -> Motion:
    """The piece of the recording that holds `start`, at even steps: straight lines between the values there are."""
    tracks = []
    for quantity in GROUPS:
        rows = values[_rows(quantity)]
        there = np.isfinite(rows).all(axis=0)
        if there.sum() < 2:
            raise source.refuse(f"{int(there.sum())} rows with all three values of the {quantity}")
        if not there.all():
            remarks.append(f"{quantity}: {int((~there).sum())} of {len(there)} rows are empty")
        tracks.append((quantity, *_once(seconds[there], rows[:, there], quantity, source, remarks)))
    steps = {quantity: _usual_step(times, quantity, source) for quantity, times, _ in tracks}
    step = min(steps.values())
    begin, end = max(times[0] for _, times, _ in tracks), min(times[-1] for _, times, _ in tracks)
    pauses, filled = [], {}
    for quantity, times, _ in tracks:
        apart = np.diff(times)
        for at in np.flatnonzero(apart > GAP * steps[quantity]):
            if apart[at] > PAUSE:
                pauses.append((float(times[at]), float(times[at + 1])))
            else:
                filled[round(float(times[at]), 6)] = float(apart[at])
    if filled:
        remarks.append(f"{len(filled)} gap(s) of at most {max(filled.values()):.3g} s, filled with straight lines")
    spans = _between(float(begin), float(end), pauses)
    here = next((span for span in spans if span[0] - step / 2 <= start + spans[0][0] <= span[1]), None)
    words = ", ".join(f"{first:.4g} to {last:.4g} s" for first, last in spans[:6]) + (" ..." if len(spans) > 6 else "")
    if here is None:
        raise source.refuse(f"start {start:g} s is outside of what it holds: {words}")
    if len(spans) > 1:
        remarks.append(f"a recording with pauses: it holds {words}")
    count = int(np.floor((here[1] - here[0]) / step + 1e-6)) + 1
    source.needs(64 * count, f"{count:,} samples")
    grid = here[0] + step * np.arange(count)
    even = np.concatenate([_on_grid(grid, times, rows, step) for _, times, rows in tracks])
    uneven = max(float(np.abs(np.diff(times)[np.diff(times) < GAP * step] / step - 1).max(initial=0)) for _, times, _ in tracks)
    if uneven > 0.05:
        remarks.append(f"uneven times, made even at {1 / step:.4g} Hz")
    begins = here[0] - spans[0][0]
    return Motion(even, 1 / step, max(0.0, start - begins), remarks, spans if len(spans) > 1 else ())


def _once(
    times: np.ndarray, rows: np.ndarray, quantity: str, source: Source, remarks: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Values of rising times: of several of one time, their mean."""
    rising, first = np.unique(times, return_index=True)
    twice = len(times) - len(rising)
    if not twice:
        return times, rows
    if twice > len(times) / 4:
        raise source.refuse(f"a clock too coarse: {twice} of {len(times)} rows share another's time", "leave time out, say rate=")
    remarks.append(f"{quantity}: {twice} rows share another's time; their mean is taken")
    return rising, np.add.reduceat(rows, first, axis=1) / np.diff(np.append(first, len(times)))


def _usual_step(times: np.ndarray, quantity: str, source: Source) -> float:
    """Seconds from one value to the next, gaps aside."""
    apart = np.diff(times)
    if not apart.size:
        raise source.refuse(f"one value of the {quantity}")
    median = float(np.median(apart))
    step = float(apart[apart < GAP * median].mean())
    if not 1 / 100_000 <= step <= 60:
        raise source.refuse(f"{quantity} values {step:.3g} s apart", "hertz from 1/60 to 100000; say time_unit=")
    return step


def _between(begin: float, end: float, pauses: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The spans from `begin` to `end` that no pause covers."""
    spans = [(begin, end)]
    for first, last in pauses:
        cut: list[tuple[float, float]] = []
        for low, high in spans:
            if first >= high or last <= low:
                cut.append((low, high))
                continue
            cut += [(low, first)] if first > low else []
            cut += [(last, high)] if last < high else []
        spans = cut
    return sorted(spans)


def _on_grid(grid: np.ndarray, times: np.ndarray, rows: np.ndarray, step: float) -> np.ndarray:
    """Rows [3, n] at the times of the grid; as they are where they were measured at these times."""
    first = int(np.searchsorted(times, grid[0] - step / 2))
    own = times[first : first + len(grid)]
    if len(own) == len(grid) and np.abs(own - grid).max() < 1e-3 * step:
        return rows[:, first : first + len(grid)]
    return np.stack([np.interp(grid, times, row) for row in rows])
