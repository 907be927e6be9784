"""A long recording's windows: one every n seconds of each of its pieces, or one at every event of a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from vitlens import checks
from vitlens.errors import OptionError
from vitlens.isolation import isolated
from vitlens.modalities.eeg_headers import check_complete
from vitlens.modalities.eeg_recordings import opened, pieces_of, quiet
from vitlens.sources import Source

EVENT = "event "
"""Stands before the name of an event that could be taken for seconds."""
Windows = dict[str, dict[str, Any]]
"""What each window is called, and its read options."""


def checked_windows(how: Any) -> float | str:
    """Seconds, or the pattern of an event's name.

    Raises:
        OptionError: neither.
    """
    if isinstance(how, str) and how.removeprefix(EVENT).strip():
        return how.removeprefix(EVENT)
    if isinstance(how, str):
        raise OptionError("eeg: windows (seconds, or the name of events) is an empty text")
    return checks.number("eeg: windows (seconds, or the name of events)", how, least=1e-3)


def in_file(path: Path, source: Source, how: float | str, window: Sequence[float]) -> Windows:
    """The windows of a recording, `window` seconds around each start, that lie within one of its pieces.

    Raises:
        InputError: damaged, shorter than a window, or without such events (those it has are listed).
    """
    with source.decoding():
        check_complete(path, source)
        return isolated(_windows, path, source, how, tuple(window))


def every(seconds: float, spans: Sequence[tuple[float, float]], window: Sequence[float], source: Source) -> Windows:
    """A window every so many seconds of each span (from, to)."""
    found: Windows = {}
    for begin, end in spans:
        count = int(np.floor((end - begin - window[1]) / seconds + 1e-6)) + 1
        starts = (begin + seconds * np.arange(max(0, count))).tolist()
        found |= {f"t={start:.10g}": {"start": start, "keep": True} for start in starts}
    if not found:
        longest = max(end - begin for begin, end in spans)
        raise source.refuse(f"{longest:g} s, and windows that end {window[1]:g} s after their start", "a longer recording")
    return found


def _windows(path: Path, source: Source, how: float | str, window: tuple[float, ...]) -> Windows:
    with source.decoding(), quiet(), opened(path, source) as recording:
        import mne

        if isinstance(recording, mne.BaseEpochs):
            return _epochs(recording, how, source)
        rate = float(recording.info["sfreq"])
        spans = [(piece.begins, piece.begins + (piece.stop - piece.first) / rate) for piece in pieces_of(recording, path, rate)]
        if not isinstance(how, str):
            return every(how, spans, window, source)
        events = sorted(_events(recording, rate))
        chosen = [(onset, name) for onset, name in events if _is(name, how)]
        if not chosen:
            raise _no_such_event(how, [name for _, name in events], source)
        inside = [one for one in chosen if any(begin <= one[0] and one[0] + window[1] <= end for begin, end in spans)]
        if not inside:
            raise source.refuse(f"{len(chosen)} events {how!r}, all of them too near an end of the recording or in a gap")
        return {f"t={onset:.10g} {name}": {"start": onset, "keep": True} for onset, name in inside}


def _is(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name.lower(), pattern.lower())


def _epochs(epochs: Any, how: float | str, source: Source) -> Windows:
    names = {code: name for name, code in epochs.event_id.items()}
    called = [names.get(code, str(code)) for code in epochs.events[:, 2]]
    if not isinstance(how, str):
        raise source.refuse(f"a file of {len(called)} epochs, and windows every {how:g} s", "windows='*' takes every epoch")
    found = {f"epoch={i} {name}": {"epoch": i} for i, name in enumerate(called) if _is(name, how)}
    if not found:
        raise _no_such_event(how, called, source)
    return found


def _events(recording: Any, rate: float) -> Iterator[tuple[float, str]]:
    """Seconds after the recording's first sample, and names: marks of the file, and codes of a trigger channel."""
    import mne

    for mark in recording.annotations:
        yield float(mark["onset"] - recording.first_samp / rate), str(mark["description"])
    if "stim" in recording.get_channel_types():
        codes = mne.find_events(recording, shortest_event=1, verbose="ERROR")
        yield from ((float((sample - recording.first_samp) / rate), str(code)) for sample, _, code in codes)


def _no_such_event(how: str, names: Sequence[str], source: Source) -> Exception:
    counts = [f"{name!r} ({count} times)" for name, count in Counter(names).most_common(12)]
    return source.refuse(f"no event {how!r}; it has {', '.join(counts) or 'none'}", "windows= of seconds, or of an event's name")
