"""Numbers of an EEG: arrays with their names, and whether values are volts as an EEG has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitlens.modalities.eeg_head import Electrode
from vitlens.modalities.eeg_montage import MODELS_ORDER, Picking, listed
from vitlens.modalities.eeg_recordings import Recording
from vitlens.sources import Source

UNITS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "standardized": 1.0}
LARGEST, SMALLEST = 0.01, 1e-8
"""Volts between which the typical deflection of an EEG must lie; real ones are tens of microvolts."""
APART = 300
"""So many times the deflection of its fellows, a channel is of another unit; bad electrodes reach a hundred times."""


def from_array(array: np.ndarray, source: Source, rate: float | None, pick: Picking, unit: str) -> Recording:
    """What `pick` wants of an array in `unit`."""
    check_shape(array.shape, source)
    rows, montage = source.numeric(array).shape[0], pick.montage
    if rate is None:
        raise source.refuse("an array without its rate", "for example rate=1000")
    if (names := pick.called(rows, source)) is not None:
        picked = pick([Electrode(name) for name in names], source)
        return Recording(in_unit(array[picked.rows], unit, source), picked.names, rate, picked=picked)
    if montage.channels is not None and rows != montage.channels == array.shape[1]:
        raise source.refuse(f"{rows} rows of {montage.channels} values", "transpose it (array.T)")
    if montage.names is not None:
        if rows != montage.channels:
            found = f"{rows} rows without names, but the model orders its {montage.channels} channels by name"
            raise source.refuse(found, "say what the rows are with channels=[...]")
        picked = pick([Electrode(name) for name in montage.names], source)
        first = ", ".join(montage.names[:3])
        said = (
            f"rows without names: taken as the model's, {first} ... in its order (channels='{MODELS_ORDER}' says that they are)"
        )
        picked = picked._replace(remarks=[*picked.remarks, said])
        return Recording(in_unit(array[picked.rows], unit, source), picked.names, rate, picked=picked)
    if montage.channels not in (None, rows):
        found = f"{rows} rows, but the model takes {montage.channels} channels"
        raise source.refuse(found, "say what the rows are with channels=[...]")
    return Recording(in_unit(array, unit, source), [], rate)


def check_shape(shape: tuple[int, ...], source: Source) -> None:
    """Refuse arrays that are no [channels, samples], or too large."""
    if len(shape) != 2:
        raise source.refuse(f"an array of shape {list(shape)}", "one recording at a time")
    check_size(*shape, source)


def check_size(channels: int, samples: int, source: Source) -> None:
    """Refuse what would take more memory than one input may: what is resampled is held in double precision."""
    source.needs(8 * channels * samples, f"{channels} channels of {samples} samples", "cut it into parts")


def checked_rate(rate: Any, source: Source) -> float:
    """`rate` as hertz."""
    number = isinstance(rate, int | float | np.number) and not isinstance(rate, bool)
    if not number or not 1 <= rate <= 100_000:
        raise source.refuse(f"a rate of {rate!r}", "rates of 1 to 100000 Hz")
    return float(rate)


def in_unit(array: np.ndarray, unit: str, source: Source) -> np.ndarray:
    """Rows given in `unit` as float32 volts (or standardized).

    Raises:
        InputError: values that are not finite, here or in float32.
    """
    source.numeric(array)
    data = np.empty(array.shape, np.float32)
    with np.errstate(over="ignore"):
        for row, values in zip(data, array, strict=True):
            row[:] = values.astype(np.float64) * UNITS[unit]
    if not np.isfinite(data).all():
        raise source.refuse("values beyond the range of float32")
    return data


def check_volts(data: np.ndarray, unit: str, names: Sequence[str], source: Source) -> list[str]:
    """Refuse what cannot be volts of an EEG; and what is to be said of single channels.

    Raises:
        InputError: NaN, flat, deflections of another unit, of all or of some channels.
    """
    source.numeric(data)
    if (data.max(axis=1) == data.min(axis=1)).all():
        raise source.refuse("a flat recording: every channel is constant")
    each = _deflections(data)
    live = each[each > 0]
    deflection = float(np.median(live)) if live.size else float(np.ptp(data, axis=1).max())
    if unit == "standardized":
        if not 1e-3 <= deflection <= 1e3:
            raise source.refuse(f"values that deviate by {deflection:.2g}, not by about 1", "say their unit=")
        return []
    if deflection > LARGEST:
        right, word = ("uV", "microvolts") if deflection > 1 else ("mV", "millivolts")
        advice = f"say unit='{right}', or 'standardized'" if unit == "V" else ""
        raise source.refuse(f"deflections of {deflection:.2g} V, probably {word}", advice)
    if deflection < SMALLEST:
        raise source.refuse(f"deflections of {deflection:.2g} V, too small for an EEG in {unit}")
    called = list(names) or [f"number {i + 1}" for i in range(len(data))]
    if large := np.flatnonzero((each > APART * deflection) & (each > LARGEST / 2)).tolist():
        found = f"{_those(called, large)} with deflections of {each[large].max():.2g} V beside others of {deflection:.2g} V"
        advice = "channels in volts, or in a unit that the file says; bads= names electrodes to leave out"
        raise source.refuse(f"channel {found}: of another unit, or of none", advice)
    small = np.flatnonzero((each > 0) & (each < deflection / APART)).tolist()
    if not small:
        return []
    return [f"channel {_those(called, small)} deflects {APART} times less than the others: dead, or of another unit"]


def _those(names: Sequence[str], places: Sequence[int]) -> str:
    return listed([names[i] for i in places], 8)


def _deflections(data: np.ndarray) -> np.ndarray:
    """Median distance of each channel from its own median, so that electrode offsets do not count."""
    data = data[:, :: max(1, data.shape[1] // 10_000)].astype(np.float64)
    return np.median(np.abs(data - np.median(data, axis=1, keepdims=True)), axis=1)
