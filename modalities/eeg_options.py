"""The options of the EEG modality and of its readings, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.modalities.eeg_layouts import LAYOUTS
from vitlens.modalities.eeg_places import plain
from vitlens.modalities.eeg_values import UNITS


def interval(option: str, value: Any, low: float, high: float) -> tuple[float, float]:
    start, stop = checks.numbers(f"eeg: {option} (from, to)", value, 2)
    if not low <= start < stop < high:
        raise OptionError(f"eeg: {option} must rise from {low:g} or more to less than {high:g}, found {list(value)}")
    return start, stop


def names_option(names: Any, channels: int) -> tuple[str, ...]:
    if isinstance(names, str):
        names = LAYOUTS[checks.one_of("eeg: names (a list of channel names, or a layout)", names, LAYOUTS)]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and plain(name) for name in names):
        raise OptionError(f"eeg: names must be a list of channel names, found {names!r:.80}")
    if len(names) != channels:
        raise OptionError(f"eeg: names lists {len(names)} channels, but channels is {channels}")
    if len({plain(name) for name in names}) != len(names):
        raise OptionError("eeg: names holds a channel twice")
    return tuple(names)


def places_option(places: Any, names: Any) -> tuple[tuple[float, ...], ...]:
    """Directions of length 1."""
    if names is None or len(checks.listed("eeg: places", places)) != len(names):
        raise OptionError(f"eeg: places must be one for each of names, found {len(places)} for {len(names or ())}")
    found = [checks.numbers(f"eeg: places, {name} (x, y, z)", place, 3) for name, place in zip(names, places, strict=True)]
    if not all(map(any, found)):
        raise OptionError("eeg: places holds the head's centre, which is no direction")
    return tuple(place if abs(math.hypot(*place) - 1) < 1e-4 else _unit(place) for place in found)


def _unit(place: Sequence[float]) -> tuple[float, ...]:
    return tuple(value / math.hypot(*place) for value in place)


def check_reading(unit: Any, start: Any, epoch: Any, bads: Any, sparse: Any, reference: Any) -> None:
    checks.one_of("eeg: unit", unit, UNITS)
    checks.number("eeg: start (seconds into the recording)", start)
    checks.whole("eeg: epoch", epoch)
    if not isinstance(bads, list | tuple) or not all(isinstance(name, str) for name in bads):
        raise OptionError(f"eeg: bads must be a list of channel names, found {bads!r:.80}")
    checks.flag("eeg: sparse", sparse)
    if reference is not None:
        checks.one_of("eeg: reference", reference, ("average",))
