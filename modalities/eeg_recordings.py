"""EEG recordings by MNE, in a process of their own: the channels that were asked for, of the piece that holds the start.

MNE reads. What it would read silently - a file that ends early, a pause in it - is caught here, what it warns of is kept.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitlens.errors import MissingDependencyError
from vitlens.isolation import isolated
from vitlens.modalities.companions import inside
from vitlens.modalities.eeg_head import Electrode
from vitlens.modalities.eeg_headers import BrainVision, EDFHeader, check_complete
from vitlens.modalities.eeg_montage import Picked, Picking
from vitlens.sources import Source, suffix_of

BRAIN = ("eeg", "ecog", "seeg", "dbs")
VOLTS = (*BRAIN, "eog", "ecg", "emg", "bio")
"""MNE's kinds of channels that are measured in volts."""
BLOCK = 1 << 24
"""Values that are read at a time."""
PAUSE = re.compile(r"(bad |edge )?boundary|new segment\b.*|bad_acq_skip", re.IGNORECASE)
"""Marks where a recording was stopped, or a part was cut out: EEGLAB's, MNE's and BrainVision's."""
_QUIET = re.compile(r"does not conform to MNE naming|head radius|montage|encountered in|deprecated", re.IGNORECASE)
"""What MNE and numpy warn of that says nothing about the signals: names of files, places of electrodes, arithmetic."""


class Piece(NamedTuple):
    """A part of a recording without a pause: its samples, and when it begins, in seconds after the recording's first sample."""

    first: int
    stop: int
    begins: float


class Recording(NamedTuple):
    """Channels of a recording, or of the piece of it that holds the start, float32 volts [channels, samples]."""

    data: np.ndarray
    names: list[str]
    rate: float
    start: float = 0.0
    """Seconds from the first sample of `data` to the start."""
    pieces: Sequence[tuple[float, float]] = ()
    """From when to when each piece of the recording lasts, in seconds after its first sample; none where there is no pause."""
    pauses: bool = False
    """Whether a pause follows `data`."""
    remarks: Sequence[str] = ()
    picked: Picked = Picked([], [])
    """What these channels are, and how those of a model that are not among them are made."""


def from_file(path: Path, source: Source, pick: Picking, *, start: float, epoch: int, factor: float) -> Recording:
    """The channels of a recording, or of one of its epochs, that `pick` wants; in volts times `factor`.

    `start` is in seconds from the first sample, as the format counts the times of its events; in a file of epochs, from the
    epoch's event.

    Raises:
        InputError: damaged, truncated, lacks channels, a start outside or in a pause ...
    """
    with source.decoding():
        check_complete(path, source)
        return isolated(_read, path, source, pick, start, epoch, factor)


def _read(path: Path, source: Source, pick: Picking, start: float, epoch: int, factor: float) -> Recording:
    with source.decoding(), quiet() as remarks, opened(path, source) as recording:
        import mne

        chosen = _picks(recording, pick, source)
        picked, names, rate = chosen.rows, chosen.names, float(recording.info["sfreq"])
        if isinstance(recording, mne.BaseEpochs):
            if not -len(recording) <= epoch < len(recording):
                raise source.refuse(f"epoch {epoch} of {len(recording)}", "epochs count from 0")
            data = recording[epoch].get_data(picks=picked)[0] * factor
            return Recording(_single(data), names, rate, start - float(recording.tmin), remarks=remarks, picked=chosen)
        pieces = pieces_of(recording, path, rate)
        piece = _piece_at(pieces, start, rate, source)
        data = _values(recording, picked, piece, factor, source)
        found = Recording(data, names, rate, start - piece.begins, picked=chosen)
        if len(pieces) > 1:
            spans = [(p.begins, p.begins + (p.stop - p.first) / rate) for p in pieces]
            remarks.append(f"a recording with gaps: it holds {_in_words(spans)}")
            found = found._replace(pieces=spans, pauses=piece is not pieces[-1])
        return found._replace(remarks=remarks)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """A list that holds at last what MNE warned of, each thing once and in one line."""
    import mne

    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as told, mne.use_log_level("WARNING"):
        warnings.simplefilter("always")
        yield remarks
    texts = [" ".join(str(one.message).split()) for one in told if issubclass(one.category, RuntimeWarning | UserWarning)]
    remarks[:0] = dict.fromkeys(text for text in texts if not _QUIET.search(text))


@contextmanager
def opened(path: Path, source: Source) -> Iterator[Any]:
    """An MNE Raw or Epochs, of a file that reads nothing outside its folder."""
    import mne

    kind = suffix_of(path)
    read = {
        "edf": mne.io.read_raw_edf, "bdf": mne.io.read_raw_bdf, "fif": mne.io.read_raw_fif, "set": mne.io.read_raw_eeglab,
        "cnt": mne.io.read_raw_cnt, "vhdr": mne.io.read_raw_brainvision,
    }[kind]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="vitlens-") as folder:
        named = _named_for_mne(path, source, Path(folder))
        try:
            recording = read(named, preload=False)
        except (TypeError, ValueError) as error:
            if kind == "set" and isinstance(error, TypeError):  # MNE's answer to a set of several trials
                _check_set(path, source)
                recording = mne.read_epochs_eeglab(named)
            elif kind == "fif" and "No raw data" in str(error):
                recording = mne.read_epochs(path, preload=False)
            else:
                raise
        except ImportError as error:
            raise MissingDependencyError(f"{source.name} needs {error.name}: pip install {error.name}") from error
        if kind in ("fif", "set") and isinstance(recording, mne.io.BaseRaw):
            for file in recording.filenames:
                if file is not None and not any(inside(place, Path(file)) for place in (path.parent, Path(folder))):
                    raise source.refuse(f"a recording that names {str(file)[:80]!r}, outside its folder", "its parts beside it")
        yield recording


def _named_for_mne(path: Path, source: Source, folder: Path) -> Path:
    """The recording by a name that MNE takes: links in `folder` where it would not take its own."""
    kind = suffix_of(path)
    if kind == "vhdr":
        return BrainVision(path, source).lay_out(folder)
    if kind != "set" or path.suffix == ".set":  # EEGLAB's types are read in small letters only
        return path
    for file in path.parent.iterdir():
        if file == path or suffix_of(file) == "fdt":
            (folder / (file.stem + file.suffix.lower())).symlink_to(file.absolute())
    return folder / f"{path.stem}.set"


def _check_set(path: Path, source: Source) -> None:
    """Refuse an EEGLAB set of epochs whose data lie outside its folder: MNE reads them at once."""
    from pymatreader import read_mat

    content = read_mat(path, variable_names=["EEG", "data"])
    name = content.get("EEG", content).get("data")
    if isinstance(name, str) and not inside(path.parent, path.parent / name):
        raise source.refuse(f"a recording that names {name[:80]!r}, outside its folder", "its parts beside it")


def _picks(recording: Any, pick: Picking, source: Source) -> Picked:
    """What is wanted of the channels in volts: by name and place among all, or all that are EEG."""
    kinds = recording.get_channel_types()
    wanted = VOLTS if pick.montage.names is not None or not set(BRAIN) & set(kinds) else BRAIN
    measured = [i for i, kind in enumerate(kinds) if kind in wanted]
    if not len(recording.times):
        raise source.refuse("no samples")
    if not measured:
        raise source.refuse(f"no EEG channels, only {', '.join(sorted(set(kinds)))}")
    bads = set(recording.info["bads"])
    electrodes = []
    for i in measured:
        name, place = recording.ch_names[i], np.asarray(recording.info["chs"][i]["loc"][:3], float)
        known = bool(np.isfinite(place).all() and place.any())
        electrodes.append(Electrode(name, kinds[i] == "eeg", name in bads, place if known else None))
    scalp = [i for i, one in enumerate(electrodes) if one.scalp]
    if (names := pick.called(len(scalp), source)) is not None:
        for i, name in zip(scalp, names, strict=True):
            electrodes[i] = electrodes[i]._replace(name=name)
    found = pick(electrodes, source)
    return found._replace(rows=[measured[row] for row in found.rows])


def _values(recording: Any, picked: list[int], piece: Piece, factor: float, source: Source) -> np.ndarray:
    """Float32 [channels, samples] of a piece, some samples of it at a time."""
    count = piece.stop - piece.first
    source.needs(8 * len(picked) * count, f"{len(picked)} channels of {count} samples", "cut it into parts")
    data, step = np.empty((len(picked), count), np.float32), max(1, BLOCK // len(recording.ch_names))
    for first in range(0, count, step):
        last = min(first + step, count)
        data[:, first:last] = _single(recording.get_data(picked, piece.first + first, piece.first + last) * factor)
    return data


def _single(data: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return data.astype(np.float32)


# --- pauses ---


def pieces_of(recording: Any, path: Path, rate: float) -> list[Piece]:
    """The parts of a recording between its pauses, in order."""
    samples, header = len(recording.times), EDFHeader.of(path)
    if header is not None and header.discontinuous and (onsets := header.onsets(path)) is not None:
        return _of_records(onsets, header, rate, samples)
    cuts = {0, samples}
    skipped = []
    for mark in recording.annotations:
        if PAUSE.fullmatch(mark["description"]):
            onset = (mark["onset"] - recording.first_samp / rate) * rate
            at = int(np.ceil(onset - 1e-6))
            cuts |= {at} if 0 < at < samples else set()
            if mark["description"].upper() == "BAD_ACQ_SKIP":  # filled with zeros
                end = int(np.ceil(onset + mark["duration"] * rate - 1e-6))
                cuts |= {end} if 0 < end < samples else set()
                skipped.append((at, end))
    edges = sorted(cuts)
    parts = [Piece(first, stop, first / rate) for first, stop in pairwise(edges)]
    return [piece for piece in parts if not any(at <= piece.first < end for at, end in skipped)]


def _of_records(onsets: np.ndarray, header: EDFHeader, rate: float, samples: int) -> list[Piece]:
    """The runs of records that follow each other without a pause."""
    per_record = round(header.seconds * rate)
    apart = np.abs(np.diff(onsets) - header.seconds) > 0.5 / rate
    starts = [0, *(np.flatnonzero(apart) + 1).tolist()]
    stops = [*starts[1:], len(onsets)]
    return [
        Piece(first * per_record, min(stop * per_record, samples), float(onsets[first]))
        for first, stop in zip(starts, stops, strict=True)
    ]


def _piece_at(pieces: list[Piece], start: float, rate: float, source: Source) -> Piece:
    """The piece that holds the moment `start`.

    Raises:
        InputError: there is none.
    """
    for piece in pieces:
        if piece.begins <= start < piece.begins + (piece.stop - piece.first) / rate:
            return piece
    spans = [(p.begins, p.begins + (p.stop - p.first) / rate) for p in pieces]
    if len(spans) > 1 and spans[0][0] <= start < max(end for _, end in spans):
        raise source.refuse(f"start {start:g} s lies in a gap of the recording: it holds {_in_words(spans)}")
    whole = f"{spans[0][1]:g} s" if len(spans) == 1 else _in_words(spans)
    raise source.refuse(f"start {start:g} s is outside its {whole}")


def _in_words(spans: Sequence[tuple[float, float]]) -> str:
    words = [f"{begin:g} to {end:g} s" for begin, end in spans[:4]]
    return ", ".join(words) + (f" and {len(spans) - 4} more pieces" if len(spans) > 4 else "")
