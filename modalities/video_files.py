"""Video files: a few evenly spread frames out of a file of any length, and whether the file is whole.

Only the wanted frames are kept, and they are reached by seeking, so memory does not grow with the clip, nor much time.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vitlens.modalities.pixel_maps import check_size
from vitlens.sources import Source, utf8_path

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""What FFmpeg may take a file for. Its other formats include playlists, which open further files and addresses."""

BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"mfra", b"free", b"skip", b"wide", b"uuid", b"meta")
"""Top-level parts of an MP4 or MOV."""


def spread(count: int, wanted: int) -> list[int]:
    """Which of `count` frames to take: the centres of `wanted` equal segments. A clip with fewer frames repeats them."""
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def stack(frames: list[np.ndarray], source: Source) -> np.ndarray:
    """Frames of one size as one array; InputError when their sizes differ."""
    sizes = sorted({f"{f.shape[1]} x {f.shape[0]}" for f in frames})
    if len(sizes) > 1:
        raise source.refuse(f"frames of different sizes ({', '.join(sizes[:4])})", "frames of one size")
    return np.stack(frames)


@dataclass(frozen=True)
class Packets:
    """What the packets of a video say before anything is decoded; times in the stream's own unit."""

    count: int
    times: list[int]
    """Presentation times of the frames, in order; shorter than `count` when the packets do not say them all."""
    keys: list[tuple[int, int]]
    """Presentation time of each key frame, and the time to seek for to land on it."""
    rate: float | None


def decode(path: Path, wanted: int, source: Source) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode `wanted` evenly spread frames `[wanted, h, w, 3]` of a video file; and its frame count, rate and frame times.

    Each wanted frame is reached from the last key frame before it. Where the packets do not tell the times of the frames,
    all frames are decoded twice instead: once to count them, once to keep the wanted ones.

    Raises:
        InputError: no video stream, no frames, or damaged packets.
    """
    packets = _look_at_packets(path, source)
    count, found = len(packets.times), None
    if count and count == packets.count:
        with _opened(path, source) as (container, stream):
            found = _seek_frames(container, stream, packets, spread(count, wanted))
    if found is None:
        with _opened(path, source) as (container, stream):
            count = sum(1 for _ in container.decode(stream))
        keep = set(spread(count, wanted)) if count else set()
        with _opened(path, source) as (container, stream):
            found = {i: frame for i, frame in enumerate(container.decode(stream)) if i in keep}
    if count == 0:
        raise source.refuse("a video without frames")
    frames = [found[i] for i in spread(count, wanted)]
    info: dict[str, Any] = {"frames_in_source": count, "frames_per_second": packets.rate}
    if all(frame.time is not None for frame in frames):
        info["times"] = [frame.time for frame in frames]
    return stack([_rgb(frame) for frame in frames], source), info


def _look_at_packets(path: Path, source: Source) -> Packets:
    count, times, keys = 0, set(), []
    with _opened(path, source) as (container, stream):
        check_size(stream.height, stream.width, source)
        rate = float(stream.average_rate or 0) or None
        for packet in container.demux(stream):  # each is let go again: together they are the whole file
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise source.refuse("damaged or cut off: not every frame is there")
            if packet.is_keyframe and packet.pts is not None:
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            if not packet.is_discard:
                count += 1
                times.add(packet.pts)
    return Packets(count, sorted(times - {None}), sorted(keys), rate)


def _seek_frames(container: Any, stream: Any, packets: Packets, indices: list[int]) -> dict[int, Any] | None:
    """The frames at `indices`; None when one does not come out of the decoder at its time."""
    found: dict[int, Any] = {}
    frames: Iterator[Any] = container.decode(stream)
    reached = packets.keys[0][0] if packets.keys else packets.times[0]
    for index in sorted(set(indices)):
        time = packets.times[index]
        before = bisect.bisect_right(packets.keys, time, key=lambda key: key[0]) - 1
        if before >= 0 and packets.keys[before][0] > reached:
            container.seek(packets.keys[before][1], stream=stream)
            frames = container.decode(stream)
        frame = next((f for f in frames if f.pts is None or f.pts >= time), None)
        if frame is None or frame.pts != time:
            return None
        found[index], reached = frame, time
    return found


@contextmanager
def _opened(path: Path, source: Source) -> Iterator[tuple[Any, Any]]:
    """A container and its first stream of moving pictures (a song's cover is none)."""
    import av

    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    with utf8_path(path) as there, av.open(there, options=options) as container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            kinds = sorted({str(s.type) for s in container.streams}) or ["nothing"]
            raise source.refuse(f"no video in it (only {' and '.join(kinds)})")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _rgb(frame: Any) -> np.ndarray:
    """RGB uint8 `[h, w, 3]`, turned as the file says (degrees counter-clockwise)."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))


def missing_bytes(path: Path) -> int:
    """How many bytes a video file says it has beyond its end, at least; 0 when it is whole or does not say.

    FFmpeg reads a file that was cut off as a shorter video, and the cut picture of a GIF as a picture.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"\x1aE\xdf\xa3":
            end = _end_of_matroska(file)
        elif head[:3] == b"GIF":
            end = _end_of_gif(file, size)
        else:
            end = _end_of_boxes(file, size)
    return max(0, end - size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """End of the top-level boxes of an MP4 (size, type) or of the RIFF chunks of an AVI (type, size)."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        if head[:4] == b"RIFF":
            length = int.from_bytes(head[4:8], "little")
            if length in (0, 0xFFFFFFFF):  # never filled in: written to a pipe
                return size
            end += 8 + length + length % 2
        elif head[4:8] in BOXES:
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length == 0:  # "to the end of the file"
                return size
            end += max(length, 8)
        else:
            break
    return end


def _end_of_matroska(file: BinaryIO) -> int:
    """End of the segment, which holds everything but the first header."""

    def element() -> int | None:
        identifier = file.read(1)
        file.read(8 - identifier[0].bit_length() if identifier and identifier[0] else 0)
        first = (file.read(1) or b"\xff")[0]
        more = 8 - first.bit_length()
        length = int.from_bytes(bytes([first & (0x7F >> more)]) + file.read(more), "big")
        return None if length == (1 << 7 * (more + 1)) - 1 else length  # all ones: written live, length not known

    header = element()
    file.seek(header or 0, 1)
    segment = element()
    return 0 if header is None or segment is None else file.tell() + segment


def _end_of_gif(file: BinaryIO, size: int) -> int:
    """End of the blocks, trailer included; past `size` when they stop before their trailer."""
    head = file.read(13)

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    file.seek(table(head[10]) if len(head) == 13 else 0, 1)
    while kind := file.read(1):
        if kind == b";":
            return file.tell()
        if kind == b",":
            descriptor = file.read(9)
            file.seek((table(descriptor[8]) if len(descriptor) == 9 else 0) + 1, 1)
        elif kind == b"!":
            file.seek(1, 1)
        else:
            return size  # bytes after the pictures that no decoder looks at
        while length := (file.read(1) or b"\0")[0]:
            file.seek(length, 1)
    return max(file.tell(), size + 1)
