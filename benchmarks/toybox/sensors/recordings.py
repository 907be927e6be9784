"""Toybox measurements as files of the formats that real sensors leave: PNG, 16-bit PNG, PLY, WAV, FIF, TIFF, CSV and arrays.

The same measurement gives the same bytes.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.benchmarks.toybox.sensors import brain, heat, motion, sound

_HEAD_RADIUS = 0.09
"""Metres."""
_ID_STRUCT, _ID_BYTES = 31, 20
"""FIF's type of identifiers: version, machine (its network address), seconds and microseconds of writing."""


def write_rgb(pixels: np.ndarray, path: Path) -> None:
    """A PNG of RGB `[h, w, 3]`, uint8."""
    import PIL.Image

    PIL.Image.fromarray(pixels).save(path, format="PNG", compress_level=3)


def write_millimetres(metres: np.ndarray, path: Path) -> None:
    """A 16-bit PNG of whole millimetres `[h, w]`, as depth cameras write."""
    import PIL.Image

    PIL.Image.fromarray(np.rint(1000 * metres).astype(np.uint16)).save(path, format="PNG", compress_level=3)


def write_ply(points: np.ndarray, path: Path) -> None:
    """A binary PLY of points `[n, 3]` in metres, or with rgb in 0..1 `[n, 6]`; y is up, as a comment says."""
    fields = [(axis, "<f4") for axis in "xyz"]
    coloured = points.shape[1] == 6
    if coloured:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
    table = np.empty(len(points), fields)
    for column, (name, _) in enumerate(fields):
        table[name] = points[:, column] if column < 3 else np.rint(255 * points[:, column])
    lines = ["ply", "format binary_little_endian 1.0", "comment up_axis y", f"element vertex {len(points)}"]
    lines += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    path.write_bytes("\n".join([*lines, "end_header\n"]).encode() + table.tobytes())


def write_sound(waveform: np.ndarray, path: Path) -> None:
    """A WAV of 16-bit samples at 16 kHz, one channel."""
    import soundfile

    soundfile.write(path, np.rint(waveform * 32768).astype(np.int16), sound.RATE, format="WAV", subtype="PCM_16")


def write_kelvin(kelvin: np.ndarray, path: Path) -> None:
    """A 16-bit TIFF of hundredths of a kelvin `[h, w]`, as radiometric cameras write."""
    import PIL.Image

    PIL.Image.fromarray(np.rint(kelvin.astype(np.float64) / heat.STEP).astype(np.uint16)).save(path, format="TIFF")


def write_motion(measured: np.ndarray, path: Path) -> None:
    """A CSV of accelerometer and gyroscope `[6, n]` with their times, in m/s² and rad/s as its header says."""
    header = "time (s),ax (m/s2),ay (m/s2),az (m/s2),gx (rad/s),gy (rad/s),gz (rad/s)"
    table = np.column_stack([np.arange(measured.shape[1]) / motion.RATE, measured.T])
    np.savetxt(path, table, fmt=["%.7f"] + ["%.2f"] * 3 + ["%.3f"] * 3, delimiter=",", header=header, comments="")


def write_array(values: np.ndarray, path: Path) -> None:
    """A .npy of the values as they are."""
    with path.open("wb") as stream:
        np.save(stream, values)


def write_eeg(volts: np.ndarray, path: Path) -> None:
    """A FIF file of one epoch `[128, 500]` that begins with the picture, through MNE; `path` ends with "-epo.fif"."""
    import mne

    with mne.use_log_level("ERROR"):
        epochs = mne.EpochsArray(volts[None].astype(np.float64), _recording_info(), tmin=0.0, baseline=None, proj=False)
        epochs.save(path, fmt="single", overwrite=True)
    path.write_bytes(_without_identifiers(path.read_bytes()))


@cache
def _recording_info() -> Any:
    import mne

    info = mne.create_info(list(brain.NAMES), brain.RATE, "eeg")
    places = dict(zip(brain.NAMES, _HEAD_RADIUS * brain.electrodes(), strict=True))
    return info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))


def _without_identifiers(content: bytes) -> bytes:
    """A FIF file without the writing machine's network address and the time of day: the same epoch, the same bytes."""
    plain, at = bytearray(content), 0
    while at + 16 <= len(plain):
        _, kind, size, following = struct.unpack_from(">4i", plain, at)
        if kind == _ID_STRUCT and size == _ID_BYTES:
            plain[at + 20 : at + 36] = bytes(16)
        if following < 0:
            break
        at = following or at + 16 + size
    return bytes(plain)
