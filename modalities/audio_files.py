"""Sound from files and arrays: decoded, scaled, or refused with one clear InputError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from vitlens.isolation import isolated
from vitlens.modalities.containers import ASF, BOXES, SOUNDING, kinds, missing_bytes, opened
from vitlens.sources import Source, utf8_path

ACCEPTED = (
    "a wav, flac, ogg, opus, mp3, aiff, au, caf, w64, m4a, aac, wma, amr or mka file or the sound of a video (path, binary file "
    "object or bytes), or an array [samples] or "
    "[channels, samples] with rate= in hertz, float in -1..1 or int16/int32/uint8 PCM"
)
MAX_CHANNELS, MAX_HOURS = 64, 12
BLOCK = 1 << 20
"""Samples that are decoded, and kept, at a time."""
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
    if array.dtype == np.int32:
        largest = max(int(array.max()), -int(array.min()))
        if 0 < largest <= 1 << 15:
            raise source.refuse("int32 samples that never leave the range of int16", "use array.astype('int16')")
        if 0 < largest <= 1 << 23:
            found = "int32 samples that never leave the range of 24 bits"
            raise source.refuse(found, "use array * 256 for 24-bit samples, or array / 2**31 for a quiet recording of 32 bits")
    return array / np.float32(-float(np.iinfo(array.dtype).min))


def checked_waveform(data: np.ndarray, source: Source) -> np.ndarray:
    """`data` as finite float32 [channels, samples] of a sane loudness."""
    source.numeric(data)
    peak = max(float(data.max()), -float(data.min()))
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
    found = f"{hours:.1f} hours of {channels} channel(s) at {rate} Hz"
    if hours > MAX_HOURS:
        raise source.refuse(found, f"at most {MAX_HOURS} hours: cut it into parts")
    source.needs(4 * channels * samples, found, "cut it into parts")


def decode(path: Path, source: Source) -> tuple[np.ndarray, int]:
    """A file's samples [channels, samples] and rate; a file shorter than its own header says is refused."""
    with path.open("rb") as file:
        head = _behind_id3(file)
    if _is_container(head) or not _states_length(head):
        return _decode_track(path, source)
    if start := _unfinished_wav(path, source):
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_COPY) as finished:
            for at, size in ((4, len(finished) - 8), (start - 4, len(finished) - start)):
                finished[at : at + 4] = min(size, 0xFFFFFFFF).to_bytes(4, _order(head))
            return _decode_file(path, source, finished)
    if _is_mpeg(head):  # whose decoder prints what it thinks of a damaged file
        return isolated(_decode_file, path, source)
    return _decode_file(path, source)


# --- which decoder ---


def _behind_id3(file: BinaryIO) -> bytes:
    """The first 4096 bytes of a file, or of what follows its ID3 tag."""
    head = file.read(4096)
    if head[:3] == b"ID3" and len(head) >= 10:
        file.seek(10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        head = file.read(4096)
    return head


def _is_container(head: bytes) -> bool:
    """Whether a file is one that FFmpeg decodes: MP4 and MOV, Matroska and WebM, AVI, WMA, AMR, or bare AAC."""
    boxes, avi = head[4:8] in BOXES, head[:4] == b"RIFF" and head[8:12] == b"AVI "
    aac = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return boxes or avi or aac or head[:4] == b"\x1aE\xdf\xa3" or head[:16] == ASF or head[:5] == b"#!AMR"


def _is_mpeg(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _states_length(head: bytes) -> bool:
    """Whether a file says how long it is: an MP3 needs a Xing or Info frame for that, a FLAC a count that is not 0."""
    if head[:4] == b"fLaC":
        return len(head) < 26 or bool(head[21] & 15 or any(head[22:26]))
    return not _is_mpeg(head) or b"Xing" in head or b"Info" in head


def _unfinished_wav(path: Path, source: Source) -> int:
    """Where the sound begins in a WAV file whose header says 0 bytes of it, as a cut-off recorder leaves it; 0 for others.

    Raises:
        InputError: there is something behind, by a header that is finished otherwise.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
            return 0
        order = _order(head)
        for name, length in _chunks(file, order):
            if name != b"data":
                continue
            at, whole = file.tell(), int.from_bytes(head[4:8], order)
            if length or size == at:
                return 0
            if whole < at or whole >= ENDLESS:
                return at
            rest = list(_chunks(file, order))
            end = at + sum(8 + inside + inside % 2 for _, inside in rest)
            if end in (size, size + 1) and all(chunk.isascii() for chunk, _ in rest):  # other chunks, and nothing else
                return 0
            raise source.refuse(f"a WAV header that was never finished: 0 bytes of sound, and {size - at} behind it")
    return 0


def _order(head: bytes) -> Literal["little", "big"]:
    return "big" if head[:4] == b"RIFX" else "little"


def _chunks(file: BinaryIO, order: Literal["little", "big"]) -> Iterator[tuple[bytes, int]]:
    """Name and size of the chunks that begin where `file` stands."""
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], order)
        place = file.tell()
        yield head[:4], length
        file.seek(place + length + length % 2)


# --- libsndfile ---


def _decode_file(path: Path, source: Source, content: mmap | None = None) -> tuple[np.ndarray, int]:
    """What libsndfile makes of a file, or of its `content` in its place."""
    if _ends_inside_page(path):
        raise source.refuse("a truncated file: its last Ogg page is cut")
    import soundfile

    try:
        with utf8_path(path) as name, soundfile.SoundFile(name if content is None else content) as file:
            if _announces_more(file.extra_info):
                raise source.refuse("a truncated file: its header announces more than there is")
            if file.frames:
                check_size(file.channels, file.frames, file.samplerate, source)
            elif path.stat().st_size > 4096:
                raise source.refuse("no samples by its header, as a recorder leaves it that is cut off")
            data = joined(_read_blocks(file))[:, : _stated(file)]
            slack = 1152 if file.format == "MP3" else 0  # one MPEG frame, which some encoders count and others do not
            if data.shape[1] + slack < _stated(file):
                raise source.refuse(f"a truncated file: {data.shape[1]} of {file.frames} samples")
            return data, file.samplerate
    except soundfile.LibsndfileError as error:
        if "unsupported encoding" in error.error_string or "unimplemented" in error.error_string:
            return _decode_track(path, source)
        raise source.refuse(f"cannot be decoded ({error.error_string.rstrip('.')})") from error


def _read_blocks(file: Any) -> Iterator[np.ndarray]:
    """The samples [channels, n], block after block: a file in which libsndfile cannot seek is read only so."""
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        yield block.T
        if len(block) < BLOCK:
            return


def _stated(file: Any) -> int:
    """How many samples a file says it has: the last block of a compressed WAV is filled up, its fact chunk tells how far."""
    fact = re.search(r"^fact\s*:.*\n\s*frames\s*:\s*(\d+)", file.extra_info, re.MULTILINE)
    stated = int(fact[1]) if fact else 0
    padded = not file.subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
    return stated if padded and file.frames - 4096 < stated < file.frames else file.frames


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


# --- FFmpeg ---


def _decode_track(path: Path, source: Source) -> tuple[np.ndarray, int]:
    """The sound track of a container, or a stream that does not say how long it is: decoded to its end, wherever that is."""
    if cut_off := missing_bytes(path):
        raise source.refuse(f"cut off: at least {cut_off} bytes are missing at its end")
    with opened(path, SOUNDING) as container:
        track = container.streams.best("audio")
        if track is None:
            raise source.refuse(f"no sound in it (only {kinds(container)})")
        frames = container.decode(track)
        first = next(frames, None)
        if first is None:
            raise source.refuse("no samples")
        rate = first.sample_rate  # the header's may be half of it
        return joined(_track_pieces(chain([first], frames), rate, source)), rate


def _track_pieces(frames: Iterator[Any], rate: int, source: Source) -> Iterator[np.ndarray]:
    """The samples [channels, n] of decoded frames, one after the other."""
    import av

    planar, samples = av.AudioResampler(format="fltp"), 0
    for frame in frames:
        if frame.sample_rate != rate:
            raise source.refuse(f"sound that changes from {rate} to {frame.sample_rate} Hz", "one rate a file")
        for piece in planar.resample(frame):
            samples += piece.samples
            check_size(len(piece.layout.channels), samples, rate, source)
            yield piece.to_ndarray()


def joined(pieces: Iterator[np.ndarray]) -> np.ndarray:
    """Pieces [channels, n] one after the other: in blocks first, each let go once it is copied, so that they are held once."""
    blocks: list[np.ndarray] = []
    filled = BLOCK
    for piece in pieces:
        while piece.shape[1]:
            if filled == BLOCK:
                blocks.append(np.empty((len(piece), BLOCK), np.float32))
                filled = 0
            part = piece[:, : BLOCK - filled]
            blocks[-1][:, filled : filled + part.shape[1]] = part
            filled += part.shape[1]
            piece = piece[:, part.shape[1] :]
    if not blocks:
        return np.zeros((1, 0), np.float32)
    total, at = (len(blocks) - 1) * BLOCK + filled, 0
    whole = np.empty((len(blocks[0]), total), np.float32)
    while blocks:
        block = blocks.pop(0)[:, : total - at]
        whole[:, at : at + block.shape[1]] = block
        at += block.shape[1]
    return whole
