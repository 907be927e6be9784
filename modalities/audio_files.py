"""Sound from files and arrays: decoded, scaled, or refused with one clear InputError."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.sources import GIB, Source, utf8_path

ACCEPTED = (
    "a wav, flac, ogg, opus, mp3, aiff, au, caf or w64 file (path, binary file object or bytes), or an array [samples] or "
    "[channels, samples] with rate= in hertz, float in -1..1 or int16/int32/uint8 PCM"
)
MAX_CHANNELS, MAX_HOURS, MAX_VALUES = 64, 12, GIB
LOUDEST = 8.0
"""Float samples beyond this are integers that were never scaled; a hot float mix stays well below."""
ENDLESS = 0x7FFFF000
"""Lengths from here on mean "unknown" in headers that were written while the sound was still running."""


def checked_rate(rate: Any, source: Source) -> int:
    whole = isinstance(rate, int | float | np.number) and not isinstance(rate, bool) and float(rate).is_integer()
    if not whole or not 1000 <= rate <= 1_000_000:
        raise source.refuse(f"a rate of {rate!r}", "rates of 1000 to 1000000 Hz, in whole hertz")
    return int(rate)


def from_array(array: np.ndarray, rate: int, source: Source) -> np.ndarray:
    """An array as float [channels, samples], integers scaled by their full range."""
    if array.ndim not in (1, 2):
        raise source.refuse(f"an array of {array.ndim} dimensions")
    array = np.atleast_2d(array)
    channels, samples = array.shape
    if channels > samples and channels > 1:
        raise source.refuse(f"{channels} channels of {samples} samples", "transpose it (array.T)")
    check_size(channels, samples, rate, source)
    source.numeric(array)
    if array.dtype.kind == "f":
        return array
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / 128
    if array.dtype not in (np.int8, np.int16, np.int32):
        raise source.refuse(f"{array.dtype} samples, whose full range is not known")
    if array.dtype == np.int32 and 0 < np.abs(array.astype(np.int64)).max() < 1 << 15:
        raise source.refuse("int32 samples that never leave the range of int16", "use array.astype('int16')")
    return array / np.float32(-float(np.iinfo(array.dtype).min))


def checked_waveform(data: np.ndarray, source: Source) -> np.ndarray:
    """`data` as finite float32 [channels, samples] of a sane loudness."""
    source.numeric(data)
    peak = float(np.abs(data).max())
    if peak > LOUDEST:
        found = f"float samples up to {peak:.4g}, probably integer PCM that was never scaled"
        raise source.refuse(found, "divide 16-bit values by 32768")
    return np.ascontiguousarray(data, dtype=np.float32)


def check_size(channels: int, samples: int, rate: int, source: Source) -> None:
    if samples == 0 or channels == 0:
        raise source.refuse("no samples")
    if channels > MAX_CHANNELS:
        raise source.refuse(f"{channels} channels", f"at most {MAX_CHANNELS} channels")
    hours = samples / rate / 3600
    if hours > MAX_HOURS or channels * samples > MAX_VALUES:
        found = f"{hours:.1f} hours of {channels} channel(s) at {rate} Hz"
        most = f"at most {MAX_HOURS} hours and {4 * MAX_VALUES / GIB:g} GiB once decoded"
        raise source.refuse(found, f"{most}: cut it into parts")


def decode(path: Path, source: Source) -> tuple[np.ndarray, int]:
    """A file's samples [channels, samples] and rate; a file shorter than its own header says is refused."""
    if not _states_length(path):
        return _decode_stream(path, source)
    if _ends_inside_page(path):
        raise source.refuse("a truncated file: its last Ogg page is cut")
    import soundfile

    try:
        with utf8_path(path) as name, soundfile.SoundFile(name) as file:
            if _announces_more(file.extra_info):
                raise source.refuse("a truncated file: its header announces more than there is")
            if file.frames:
                check_size(file.channels, file.frames, file.samplerate, source)
            data = file.read(dtype="float32", always_2d=True)
            slack = 1152 if file.format == "MP3" else 0  # one MPEG frame, which some encoders count and others do not
            if len(data) + slack < file.frames:
                raise source.refuse(f"a truncated file: {len(data)} of {file.frames} samples")
            return data.T, file.samplerate
    except soundfile.LibsndfileError as error:
        raise source.refuse(f"cannot be decoded ({error.error_string.rstrip('.')})") from error


def _announces_more(log: str) -> bool:
    """Whether a header speaks of more sound than there is, by libsndfile's log ("data : 529200 (should be 158729)")."""
    chunks = re.findall(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return any(int(real) < int(stated) < ENDLESS for stated, real in chunks) or "does not match value from 'ds64'" in log


def _ends_inside_page(path: Path) -> bool:
    """Whether an Ogg file's last page goes beyond its end."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        size = path.stat().st_size
        file.seek(max(0, size - 2 * 65536))  # a page has at most 65307 bytes
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _states_length(path: Path) -> bool:
    """Whether the file says how long it is: an MP3 needs a Xing or Info frame for that, a FLAC a count that is not 0."""
    with path.open("rb") as file:
        head = file.read(4096)
        if head[:4] == b"fLaC":
            return len(head) < 26 or bool(head[21] & 15 or any(head[22:26]))
        if head[:3] == b"ID3" and len(head) >= 10:
            file.seek(10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
            head = file.read(4096)
        mpeg = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
        return not mpeg or b"Xing" in head or b"Info" in head


def _decode_stream(path: Path, source: Source) -> tuple[np.ndarray, int]:
    """As `_decode`, for streams that do not say how long they are: decoded to the end, wherever that is."""
    import av

    with utf8_path(path) as name, av.open(name) as container:
        if not container.streams.audio:
            raise source.refuse("a file without sound")
        stream = container.streams.audio[0]
        planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        pieces: list[np.ndarray] = []
        samples = 0
        for frame in container.decode(stream):
            for piece in planar.resample(frame):
                pieces.append(piece.to_ndarray())
                samples += piece.samples
                check_size(len(pieces[0]), samples, stream.rate, source)
        return (np.concatenate(pieces, axis=1) if pieces else np.zeros((1, 0), np.float32)), stream.rate
