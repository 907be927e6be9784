"""Videos as they are met: turned and mirrored in all eight ways, with frames of unequal length, two hours long."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from vitlens.errors import InputError
from vitlens.modalities.video import Video
from vitlens.modalities.video_files import spread, spread_over_time

video = Video()
COLOURS = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "w": (255, 255, 255)}


def corner_video(path: Path, matrix: Sequence[int]) -> Path:
    """96 x 64 pixels, red and green above blue and white; the display matrix (a, b, c, d) of its track rewritten."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:32, :48], frame[:32, 48:], frame[32:, :48], frame[32:, 48:] = COLOURS.values()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv444p")))
        container.mux(stream.encode())
    content = path.read_bytes()
    at = content.find(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2
    a, b, c, d = (value << 16 for value in matrix)
    x, y = 96 * (a < 0 or b < 0) << 16, 64 * (c < 0 or d < 0) << 16
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, x, y, 1 << 30) + content[at + 36 :])
    return path


def corners(frame: np.ndarray) -> str:
    height, width = frame.shape[:2]
    names = {tuple(value > 127 for value in colour): name for name, colour in COLOURS.items()}
    quarters = [frame[y * height // 4, x * width // 4] > 127 for y in (1, 3) for x in (1, 3)]
    return "".join(names.get(tuple(quarter.tolist()), "?") for quarter in quarters)


@pytest.mark.parametrize("kind", ["mp4", "mov"])
@pytest.mark.parametrize(
    ("matrix", "shape", "seen"),
    [
        ((1, 0, 0, 1), (64, 96), "rgbw"),
        ((-1, 0, 0, 1), (64, 96), "grwb"),  # left and right
        ((1, 0, 0, -1), (64, 96), "bwrg"),  # top and bottom
        ((-1, 0, 0, -1), (64, 96), "wbgr"),
        ((0, 1, -1, 0), (96, 64), "brwg"),  # a quarter turn clockwise, as most telephones
        ((0, -1, 1, 0), (96, 64), "gwrb"),
        ((0, 1, 1, 0), (96, 64), "rbgw"),  # transposed
        ((0, -1, -1, 0), (96, 64), "wgbr"),
    ],
)
def test_all_eight_orientations(tmp_path: Path, kind: str, matrix: Sequence[int], shape: tuple[int, int], seen: str) -> None:
    frames = video.read(corner_video(tmp_path / f"corner.{kind}", matrix)).data
    assert frames.shape == (8, *shape, 3)
    assert {corners(frame) for frame in frames} == {seen}


def timed_video(path: Path, lasting: Sequence[int], codec: str = "mpeg4", pixels: str = "yuv420p") -> Path:
    """Frames of 20, 40, 60 ... brightness, each of so many hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=100)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 32, 32, pixels, Fraction(1, 100)
        stream.codec_context.time_base = Fraction(1, 100)
        for number, start in enumerate(np.cumsum([0, *lasting[:-1]]).tolist()):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 + 20 * number, np.uint8)).reformat(format=pixels)
            frame.pts, frame.time_base, frame.duration = start, Fraction(1, 100), lasting[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv"])
def test_frames_of_unequal_length_are_taken_by_time(tmp_path: Path, kind: str) -> None:
    """A screen recording: one frame stands for eight seconds, nine flit by in a ninth of one."""
    path = timed_video(tmp_path / f"screen.{kind}", [800, *[10] * 9, 10])
    sample = Video(frames=9).read(path)
    shades = np.rint((sample.data.mean(axis=(1, 2, 3)) - 20) / 20).astype(int).tolist()
    assert shades == [0] * 8 + [5]  # of 9 s: half a second, one and a half ... and at last 8.5 s
    assert sample.info["times"] == pytest.approx([0] * 8 + [8.4])
    assert sample.info["frames_in_source"] == 11


def test_frames_of_an_animation_last_as_long_as_it_says(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (16, 16), (shade, shade, shade)) for shade in (0, 100, 200)]
    path = tmp_path / "still.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 100, 1800])
    seen = Video(frames=4).read(path).data[:, 0, 0, 0].astype(int)
    assert np.abs(seen - 200).max() < 8


def test_equal_frames_are_taken_by_number_however_their_times_are_rounded() -> None:
    for count in (4, 7, 30, 97):
        for length in (1, 33 + 1 / 3, 16 + 2 / 3, 512, 3003 / 2):
            times = np.rint(np.arange(count) * length).astype(int).tolist()
            assert spread_over_time(times, round(count * length), 8) == spread(count, 8)
    assert spread_over_time([0, 1, 3, 4], 5, 5) == [0, 1, 1, 2, 3]
    assert spread_over_time([7], 7, 3) == [0, 0, 0]


@pytest.mark.parametrize("length", [1 << 40, (1 << 56) - 2])
def test_a_header_that_claims_to_go_on_for_ever_is_refused(tmp_path: Path, length: int) -> None:
    path = timed_video(tmp_path / "long.mkv", [100])
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + (length | 1 << 56).to_bytes(8, "big") + whole[5:])
    with pytest.raises(InputError, match=r"long\.mkv"):
        Video().read(path)


MEMORY = """
import resource, sys
from vitlens.modalities.video import Video
Video().read(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames = Video().read(sys.argv[2]).info["frames_in_source"]
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does: run it there")
def test_two_hours_take_no_more_memory_than_a_second(tmp_path: Path) -> None:
    paths = [tmp_path / "short.mp4", tmp_path / "long.mp4"]
    for path, count in zip(paths, (25, 36_000), strict=True):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=5)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", 250
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8)).reformat(format="yuv420p")
            for number in range(count):
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    done = subprocess.run([sys.executable, "-c", MEMORY, *map(str, paths)], capture_output=True, text=True, check=True)
    frames, kilobytes = map(int, done.stdout.split())
    assert frames == 36_000
    assert kilobytes < 20_000


def test_frames_that_would_take_all_memory_are_refused_by_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corner_video(tmp_path / "small.mp4", (1, 0, 0, 1))
    monkeypatch.setenv("VITLENS_READ_GIB", "0.0001")
    with pytest.raises(InputError, match="8 frames of 96 x 64 pixels"):
        video.read(path)


def test_damaged_videos_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = corner_video(tmp_path / "whole.mp4", (1, 0, 0, 1)).read_bytes()
    for at in range(40, len(whole), max(1, len(whole) // 20)):
        damaged = bytearray(whole)
        damaged[at : at + 4] = b"\xff\x00\xff\x00"
        with contextlib.suppress(InputError):
            video.read(bytes(damaged), format="mp4")
    assert capfd.readouterr() == ("", "")
