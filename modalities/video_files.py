"""Video files: a few frames out of a file of any length, evenly spread over its time.

Only the wanted frames are kept, and they are reached by seeking, so memory does not grow with the clip, nor much time.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlens.modalities.containers import MOVING, kinds, opened
from vitlens.modalities.pixel_maps import check_size, turned
from vitlens.sources import Source


def spread(count: int, wanted: int) -> list[int]:
    """Which of `count` frames to take: the centres of `wanted` equal segments. A clip with fewer frames repeats them."""
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def spread_over_time(times: Sequence[int], end: int, wanted: int) -> list[int]:
    """Which frames are seen at the centres of `wanted` equal segments of time, of frames that begin at `times` and end at `end`.

    Where all frames last equally long, but for the rounding of their times, that is `spread` of their number.
    """
    moments = np.append(np.asarray(times), end)
    lasting = np.diff(moments)
    mean = lasting.mean()
    if np.abs(lasting - mean).max() < (1 if mean >= 2 else 1e-9):
        return spread(len(times), wanted)
    centres = moments[0] + (2 * np.arange(wanted) + 1) * (moments[-1] - moments[0]) / (2 * wanted)
    return (np.searchsorted(moments[:-1], centres, side="right") - 1).tolist()


def stack(frames: list[np.ndarray], source: Source) -> np.ndarray:
    """Frames of one size as one array; InputError when their sizes differ."""
    sizes = sorted({f"{f.shape[1]} x {f.shape[0]}" for f in frames})
    if len(sizes) > 1:
        raise source.refuse(f"frames of different sizes ({', '.join(sizes[:4])})", "frames of one size")
    return np.stack(frames)


@dataclass
class Packets:
    """What the packets of a video say before anything is decoded; times in the stream's own unit, eight bytes each."""

    count: int = 0
    times: array[int] = field(default_factory=lambda: array("q"))
    """Presentation times of the frames, in order; shorter than `count` when the packets do not say them all."""
    end: int = 0
    keys: array[int] = field(default_factory=lambda: array("q"))
    """Presentation times of the key frames, in order."""
    seeks: array[int] = field(default_factory=lambda: array("q"))
    """The time to seek for to land on each of them: when it is decoded."""
    rate: float | None = None


def decode(path: Path, wanted: int, source: Source) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode `wanted` evenly spread frames `[wanted, h, w, 3]` of a video file; and its frame count, rate and frame times.

    Each wanted frame is reached from the last key frame before it. Where the packets do not tell the times of the frames,
    all frames are decoded twice instead: once to count them, once to keep the wanted ones.

    Raises:
        InputError: no video stream, no frames, or damaged packets.
    """
    packets, found = _look_at_packets(path, wanted, source), None
    count = len(packets.times)
    if count and count == packets.count:
        indices = spread_over_time(packets.times, packets.end, wanted)
        with _opened(path, source) as (container, stream):
            found = _seek_frames(container, stream, packets, indices)
    if found is None:
        count, indices = _count_frames(path, wanted, source)
        with _opened(path, source) as (container, stream):
            found = {i: _seen(frame) for i, frame in enumerate(container.decode(stream)) if i in indices}
    info: dict[str, Any] = {"frames_in_source": count, "frames_per_second": packets.rate}
    if all(found[i][1] is not None for i in indices):
        info["times"] = [found[i][1] for i in indices]
    return stack([found[i][0] for i in indices], source), info


def _look_at_packets(path: Path, wanted: int, source: Source) -> Packets:
    packets = Packets()
    with _opened(path, source) as (container, stream):
        check_size(stream.height, stream.width, source)
        size = f"{wanted} frames of {stream.width} x {stream.height} pixels"
        source.needs(2 * 3 * wanted * stream.height * stream.width, size)
        packets.rate = float(stream.average_rate or 0) or None
        for packet in container.demux(stream):  # each is let go again: together they are the whole file
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise source.refuse("damaged or cut off: not every frame is there")
            if packet.is_keyframe and packet.pts is not None:
                packets.keys.append(packet.pts)
                packets.seeks.append(packet.pts if packet.dts is None else packet.dts)
            if not packet.is_discard:
                packets.count += 1
                if packet.pts is not None:
                    packets.times.append(packet.pts)
                    packets.end = max(packets.end, packet.pts + (packet.duration or 0))
    order = np.argsort(np.asarray(packets.keys), kind="stable")
    packets.keys, packets.seeks = (_whole(np.asarray(times)[order]) for times in (packets.keys, packets.seeks))
    packets.times = _whole(np.unique(np.asarray(packets.times)))
    packets.end = _end(packets.times, packets.end)
    return packets


def _whole(times: np.ndarray) -> array[int]:
    return array("q", times.astype(np.int64).tobytes())


def _end(times: Sequence[int], end: int) -> int:
    """When the last frame ends: as its packet says, or when it has lasted as long as the others."""
    if len(times) < 2 or end > times[-1]:
        return max([end, *times[-1:]])
    return times[-1] + max(1, round((times[-1] - times[0]) / (len(times) - 1)))


def _count_frames(path: Path, wanted: int, source: Source) -> tuple[int, list[int]]:
    """How many frames there are, and which are wanted: by their times where the decoder gives them in order."""
    times, count, end = array("q"), 0, 0
    with _opened(path, source) as (container, stream):
        for frame in container.decode(stream):
            count += 1
            if frame.pts is not None:
                times.append(frame.pts)
                end = max(end, frame.pts + (frame.duration or 0))
    if count == 0:
        raise source.refuse("a video without frames")
    if len(times) == count and (np.diff(np.asarray(times)) > 0).all():
        return count, spread_over_time(times, _end(times, end), wanted)
    return count, spread(count, wanted)


def _seek_frames(container: Any, stream: Any, packets: Packets, indices: list[int]) -> dict[int, Any] | None:
    """The frames at `indices`, as `_seen`; None when one does not come out of the decoder at its time."""
    found: dict[int, Any] = {}
    frames: Iterator[Any] = container.decode(stream)
    reached = packets.keys[0] if packets.keys else packets.times[0]
    for index in sorted(set(indices)):
        time = packets.times[index]
        before = bisect.bisect_right(packets.keys, time) - 1
        if before >= 0 and packets.keys[before] > reached:
            container.seek(packets.seeks[before], stream=stream)
            frames = container.decode(stream)
        frame = next((f for f in frames if f.pts is None or f.pts >= time), None)
        if frame is None or frame.pts != time:
            return None
        found[index], reached = _seen(frame), time
    return found


@contextmanager
def _opened(path: Path, source: Source) -> Iterator[tuple[Any, Any]]:
    """A container and its first stream of moving pictures (a song's cover is none)."""
    import av

    with opened(path, MOVING) as container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            hint = "its sound is read as audio" if container.streams.audio else ""
            raise source.refuse(f"no video in it (only {kinds(container)})", hint)
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _seen(frame: Any) -> tuple[np.ndarray, float | None]:
    """RGB uint8 `[h, w, 3]` as it is to be seen, and its time in seconds.

    The display matrix (a b u, c d v, x y w) moves a pixel at (p, q) to (a p + c q + x, b p + d q + y), y downwards; it turns and
    mirrors in all eight ways.
    """
    pixels = frame.to_ndarray(format="rgb24")
    for data in frame.side_data:
        if str(getattr(data.type, "name", data.type)) == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), "=i4")[:5].tolist()
            swap = abs(b) + abs(c) > abs(a) + abs(d)
            pixels = turned(pixels, swap, (c if swap else a) < 0, (b if swap else d) < 0)
    return pixels, frame.time
