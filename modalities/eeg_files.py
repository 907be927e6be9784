"""EEG from files and arrays: volts of the channels that were asked for by name, or one clear InputError.

MNE reads the recordings. What it would read silently - a file that ends early, microvolts taken for volts - is caught here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitlens.errors import MissingDependencyError
from vitlens.isolation import isolated
from vitlens.sources import Source, suffix_of

ACCEPTED = (
    "an EEG recording (edf, bdf, fif, set, cnt, BrainVision by its vhdr), or an npy/npz file, array or tensor "
    "[channels, samples] with rate= in hertz and unit= 'V', 'mV', 'uV' or 'standardized'"
)
UNITS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "standardized": 1.0}
LARGEST, SMALLEST = 0.01, 1e-8
"""Volts between which the typical deflection of an EEG must lie; real ones are tens of microvolts."""
MAX_VALUES = 1 << 29
VOLTS = ("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs", "bio")
"""MNE's kinds of channels that are measured in volts."""
NOT_EEG = re.compile(
    r"eog|[hv]eo|ecg|ekg|emg|sti|status|trig|misc|resp|gsr|mark|event|annot|photic|pulse|spo2|acc|exg|plet|temp|erg|aux"
)
"""Plain names of channels that lie beside the EEG in formats that do not say what kind a channel is."""
OLD_NAMES = {"t7": "t3", "t8": "t4", "p7": "t5", "p8": "t6", "t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
"""The same places in the 10-20 system of 1958 and in today's."""


class Recording(NamedTuple):
    """Channels of a recording: values [channels, samples], names, rate (hertz), seconds from the first sample to time zero.

    `segments` are the pieces of a recording with gaps: (seconds at which it begins, its first sample, number of samples).
    """

    data: np.ndarray
    names: list[str]
    rate: float
    before: float = 0.0
    segments: tuple[tuple[float, int, int], ...] = ()

    def from_second(self, start: float, source: Source) -> tuple[np.ndarray, float]:
        """The values of the piece that holds the second `start`, and `start` counted from its beginning.

        Raises:
            InputError: nothing was recorded at that time.
        """
        for begin, first, count in self.segments:
            if begin <= start < begin + count / self.rate:
                return self.data[:, first : first + count], start - begin
        if self.segments:
            pieces = ", ".join(f"{begin:g} to {begin + count / self.rate:g} s" for begin, _, count in self.segments[:8])
            raise source.refuse(f"start {start:g} s lies in a gap of the recording", f"it was interrupted; there are {pieces}")
        start += self.before
        seconds = self.data.shape[1] / self.rate
        if not 0 <= start < seconds:
            raise source.refuse(f"start {start:g} s is outside its {seconds:g} s")
        return self.data, start


class Montage(NamedTuple):
    """The channels a model takes: how many, and which in which order (None: whatever the recording has)."""

    channels: int | None
    names: Sequence[str] | None

    def places(self, names: list[str], source: Source) -> list[int]:
        """Where this montage's channels are among `names`.

        Raises:
            InputError: some are missing (close matches are listed) or not unique; without names of its own: another number.
        """
        if self.names is None:
            found = [i for i, name in enumerate(names) if not NOT_EEG.match(plain(name))]
            if len(found) != (len(found) or 1 if self.channels is None else self.channels):
                listed = ", ".join(names[i] for i in found[:8]) + (", ..." if len(found) > 8 else "")
                advice = f"{self.channels or 'some'} channels, or say which with the option names=[...]"
                raise source.refuse(f"{len(found)} EEG channels ({listed or 'none'})", advice)
            return found
        known: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            known.setdefault(plain(name), []).append(i)
        found_by_name = [(name, known.get(plain(name), [])) for name in self.names]
        missing = [_with_close_matches(name, names) for name, found in found_by_name if not found]
        if missing:
            listed = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
            raise source.refuse(f"no channel {listed}", f"all {self.channels} channels of the model")
        doubled = [name for name, found in found_by_name if len(found) > 1]
        if doubled:
            raise source.refuse(f"more than one channel {', '.join(doubled[:8])}")
        return [found[0] for _, found in found_by_name]


def plain(name: str) -> str:
    """A channel's name without case, dots, blanks, and what EDF writers add to it ("EEG Fp1.-REF")."""
    name = re.sub(r"[.\s]", "", re.sub(r"^\s*eeg[\s_]+", "", name.lower()))
    return re.sub(r"-(ref|le)$", "", name)


def _with_close_matches(name: str, names: list[str]) -> str:
    by_plain = {plain(other): other for other in names}
    old = OLD_NAMES.get(plain(name), "")
    close = [old] if old in by_plain else difflib.get_close_matches(plain(name), by_plain, n=2)
    return f"{name} (close: {', '.join(by_plain[match] for match in close)})" if close else name


def from_array(array: np.ndarray, source: Source, names: Sequence[str] | None, rate: float | None, montage: Montage) -> Recording:
    """The montage's channels of an array whose rows are called `names`."""
    if array.ndim != 2:
        raise source.refuse(f"an array of shape {list(array.shape)}", "one recording at a time")
    check_size(array.shape[0], array.shape[1], source)
    rows = source.numeric(array).shape[0]
    if rate is None:
        raise source.refuse("an array without its rate", "for example rate=1000")
    if names is not None:
        if isinstance(names, str) or len(names) != rows or not all(isinstance(n, str) for n in names):
            raise source.refuse(f"{rows} rows, but channels={names!r:.80}", "one name per row")
        places = montage.places(list(names), source)
        return Recording(array[places], [names[i] for i in places], rate)
    if montage.channels is None:
        return Recording(array, [], rate)
    if rows != montage.channels and array.shape[1] == montage.channels:
        raise source.refuse(f"{rows} rows of {montage.channels} values", "transpose it (array.T)")
    if rows != montage.channels:
        found = f"{rows} rows, but the model takes {montage.channels} channels"
        raise source.refuse(found, "say what the rows are with channels=[...]")
    if montage.names is not None:
        found = "rows without names, but the model orders its channels by name"
        raise source.refuse(found, "say what the rows are with channels=[...]")
    return Recording(array, [], rate)


def from_file(path: Path, source: Source, epoch: int, montage: Montage) -> Recording:
    """The montage's channels of a recording or of one of its epochs, in volts, read by MNE.

    EEGLAB's files in a process of its own: a flipped bit may make scipy's loadmat end the one that it runs in.
    """
    if suffix_of(path) == "set":
        return isolated(_from_file, path, source, epoch, montage)
    return _from_file(path, source, epoch, montage)


def _from_file(path: Path, source: Source, epoch: int, montage: Montage) -> Recording:
    import mne

    with source.decoding(), mne.use_log_level("ERROR"):
        _check_complete(path, source)
        recording = _open(path, source)
        kinds, before = recording.get_channel_types(), 0.0
        measured = [i for i, kind in enumerate(kinds) if kind in VOLTS]
        if not measured:
            raise source.refuse(f"no EEG channels, only {', '.join(sorted(set(kinds)))}")
        places = montage.places([recording.ch_names[i] for i in measured], source)
        picked = [measured[i] for i in places]
        if isinstance(recording, mne.BaseEpochs):
            if not -len(recording) <= epoch < len(recording):
                raise source.refuse(f"epoch {epoch} of {len(recording)}", "epochs count from 0")
            recording, before = recording[epoch], -float(recording.tmin)
        check_size(len(picked), len(recording.times), source)
        data = recording.get_data(picks=picked)
        names = [recording.ch_names[i] for i in picked]
        rate = float(recording.info["sfreq"])
        return Recording(data[0] if data.ndim == 3 else data, names, rate, before, _edf_segments(path, rate))


def _open(path: Path, source: Source) -> Any:
    """An MNE Raw or Epochs."""
    import mne

    try:
        return mne.io.read_raw(path, verbose="ERROR")
    except (TypeError, ValueError) as error:
        if suffix_of(path) == "set" and isinstance(error, TypeError):  # MNE's answer to a set of several trials
            return mne.read_epochs_eeglab(path, verbose="ERROR")
        if suffix_of(path) == "fif" and "No raw data" in str(error):
            return mne.read_epochs(path, preload=False, verbose="ERROR")
        raise
    except ImportError as error:
        raise MissingDependencyError(f"{source.name} needs {error.name}: pip install {error.name}") from error


def check_size(channels: int, samples: int, source: Source) -> None:
    """Refuse what would take more than 4 GiB to hold."""
    if channels * samples > MAX_VALUES:
        raise source.refuse(f"{channels} channels of {samples} samples", "cut it into parts")


def checked_rate(rate: Any, source: Source) -> float:
    """`rate` as hertz."""
    number = isinstance(rate, int | float | np.number) and not isinstance(rate, bool)
    if not number or not 1 <= rate <= 100_000:
        raise source.refuse(f"a rate of {rate!r}", "rates of 1 to 100000 Hz")
    return float(rate)


def checked_volts(data: np.ndarray, unit: str, source: Source, names: Sequence[str] = ()) -> np.ndarray:
    """`data`, given in `unit`, as finite float32 volts (or standardized) whose deflections are those of an EEG, in every row."""
    source.numeric(data)
    if (data == data[:, :1]).all():
        raise source.refuse("a flat recording: every channel is constant")
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(data.astype(np.float64) * UNITS[unit], dtype=np.float32)
    if not np.isfinite(data).all():
        raise source.refuse("values beyond the range of float32")
    deflection = _typical_deflection(data)
    if unit == "standardized":
        if not 1e-3 <= deflection <= 1e3:
            raise source.refuse(f"values that deviate by {deflection:.2g}, not by about 1", "say their unit=")
    elif deflection > LARGEST:
        right, word = ("uV", "microvolts") if deflection > 1 else ("mV", "millivolts")
        advice = f"say unit='{right}', or 'standardized'" if unit == "V" else ""
        raise source.refuse(f"deflections of {deflection:.2g} V, probably {word}", advice)
    elif deflection < SMALLEST:
        raise source.refuse(f"deflections of {deflection:.2g} V, too small for an EEG in {unit}")
    else:
        _check_each(data, names, source)
    return data


def _check_each(data: np.ndarray, names: Sequence[str], source: Source) -> None:
    """Refuse rows that can be no EEG beside the others: most likely a channel whose unit is missing or another."""
    each = _deflections(data)
    odd = [int(row) for row in np.flatnonzero(each > LARGEST) if each[row] > 100 * np.median(each)]
    if odd:
        named = ", ".join(f"{names[row] if names else f'row {row}'} ({each[row]:.2g} V)" for row in odd[:8])
        raise source.refuse(
            f"channels that are no EEG, whatever the others are: {named}", "give them their unit, or leave them out"
        )


def _deflections(data: np.ndarray) -> np.ndarray:
    """Median distance of every channel from its own median, so that electrode offsets do not count."""
    data = data[:, :: max(1, data.shape[1] // 10_000)].astype(np.float64)
    return np.median(np.abs(data - np.median(data, axis=1, keepdims=True)), axis=1)


def _typical_deflection(data: np.ndarray) -> float:
    """The deflection of live channels; flat ones do not count."""
    distances = _deflections(data)
    live = distances[distances > 0]
    return float(np.median(live)) if live.size else float(np.ptp(data, axis=1).max())


def _check_complete(path: Path, source: Source) -> None:
    """Refuse what MNE would read silently as far as it goes: EDF, BDF and BrainVision files shorter than their headers say."""
    if suffix_of(path) == "vhdr":
        there, stated = _brainvision_samples(path, source)
        found = f"a truncated recording: {there:g} samples of {stated:g} or more"
    else:
        there, stated = _edf_bytes(path)
        found = f"a truncated file: {there} of {stated} bytes"
    if there < stated:
        raise source.refuse(found)


def _edf_bytes(path: Path) -> tuple[int, int]:
    """How many bytes an EDF or BDF file has, and how many its header announces (0 where it does not say)."""
    sample_bytes = {"edf": 2, "bdf": 3}.get(suffix_of(path))
    with path.open("rb") as file:
        head = file.read(256)
        fields = [head[184:192], head[236:244], head[252:256]]
        if sample_bytes is None or not all(field.strip().isdigit() for field in fields):  # -1 records: it is still running
            return 0, 0
        header, records, signals = map(int, fields)
        file.seek(256 + 216 * signals)
        counts = file.read(8 * signals)
    if len(counts) < 8 * signals:
        return path.stat().st_size, header
    per_record = sum(int(counts[8 * i : 8 * i + 8]) for i in range(signals))
    return path.stat().st_size, header + records * per_record * sample_bytes


def _edf_segments(path: Path, rate: float) -> tuple[tuple[float, int, int], ...]:
    """The pieces of an EDF+D or BDF+D file with gaps, by the times that stand in its records (EDF+ 2.1); none without gaps."""
    sample_bytes = {"edf": 2, "bdf": 3}.get(suffix_of(path))
    with path.open("rb") as file:
        head = file.read(256)
        if sample_bytes is None or head[192:197] not in (b"EDF+D", b"BDF+D"):
            return ()
        header, records, seconds, signals = (float(head[at:to]) for at, to in ((184, 192), (236, 244), (244, 252), (252, 256)))
        table = file.read(int(256 * signals))
        counts = [int(table[at : at + 8]) for at in range(int(216 * signals), int(224 * signals), 8)]
        labels = [table[16 * i : 16 * i + 16].strip() for i in range(int(signals))]
        times = next((i for i, label in enumerate(labels) if label.endswith(b"Annotations")), None)
        if times is None:
            return ()
        size, before = sum(counts) * sample_bytes, sum(counts[:times]) * sample_bytes
        onsets: list[float] = []
        for record in range(int(records)):
            file.seek(int(header) + record * size + before)
            found = re.match(rb"\+?(-?[\d.]+)", file.read(counts[times] * sample_bytes))
            onsets.append(float(found[1]) if found else record * seconds)
    return _pieces([onset - onsets[0] for onset in onsets], seconds, round(seconds * rate))


def _pieces(onsets: Sequence[float], seconds: float, samples: int) -> tuple[tuple[float, int, int], ...]:
    """Records at `onsets`, of so many `seconds` and `samples`, joined where one begins as the one before it ends."""
    pieces: list[tuple[float, int, int]] = []
    for record, onset in enumerate(onsets):
        if pieces and abs(onset - onsets[record - 1] - seconds) < 0.5 * seconds / max(samples, 1):
            begin, first, count = pieces[-1]
            pieces[-1] = (begin, first, count + samples)
        else:
            pieces.append((onset, record * samples, samples))
    return tuple(pieces) if len(pieces) > 1 else ()


def _brainvision_samples(path: Path, source: Source) -> tuple[float, float]:
    """How many samples the data file of a BrainVision header has, and how many header and markers speak of."""
    text = _brainvision_text(path)
    entries = dict(re.findall(r"^(\w+)=(.*?)\s*$", text, re.MULTILINE))
    data = path.parent / entries.get("DataFile", "").replace("$b", path.stem)
    if not data.resolve().is_relative_to(path.parent.resolve()):
        raise source.refuse(f"it refers to {entries['DataFile'][:80]!r}, outside its folder")
    if "DataFile" in entries and not data.is_file():
        raise source.refuse(f"its data file {data.name} is not beside it")
    width = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}.get(entries.get("BinaryFormat", ""))
    if width is None or not entries.get("NumberOfChannels", "").isdigit() or int(entries["NumberOfChannels"]) == 0:
        return 0, 0
    there = data.stat().st_size / (width * int(entries["NumberOfChannels"]))
    markers = path.parent / entries.get("MarkerFile", "").replace("$b", path.stem)
    marks = re.findall(r"^Mk\d+=[^,]*,[^,]*,(\d+)", _brainvision_text(markers), re.MULTILINE) if markers.is_file() else []
    points = entries.get("DataPoints", "0")
    return there, max(math.ceil(there), int(points) if points.isdigit() else 0, *map(int, marks))


def _brainvision_text(path: Path) -> str:
    content = path.read_bytes()
    return content.decode("utf-8" if b"UTF-8" in content else "latin-1", errors="replace")
