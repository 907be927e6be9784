"""Video: the right frames of any clip, whatever its container, length, rotation or damage."""

from __future__ import annotations

import json
from pathlib import Path

import av
import hypothesis.extra.numpy as arrays
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.errors import InputError, OptionError
from vitlens.modalities import video_files
from vitlens.modalities.image import Image
from vitlens.modalities.video import Video
from vitlens.modalities.video_files import spread

video = Video()
CONTAINERS = {
    "mp4": ("libx264", "yuv420p", {"bf": "3"}),
    "mov": ("mpeg4", "yuv420p", {"bf": "2"}),
    "avi": ("mpeg4", "yuv420p", {}),
    "mkv": ("ffv1", "bgr0", {}),
    "webm": ("libvpx-vp9", "yuv420p", {"lag-in-frames": "16", "cpu-used": "8"}),
    "gif": ("gif", "rgb8", {}),
}


def clip(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that tell their number: grey of 5 per frame, brighter to the right."""
    shade = np.linspace(0, 40, width)[None, None, :, None]
    grey = 10 + 5 * np.arange(count)[:, None, None, None] % 200
    return np.broadcast_to(grey + shade, (count, height, width, 3)).astype(np.uint8)


def write_clip(path: Path, frames: np.ndarray, *, rotation: int = 0, options: dict[str, str] | None = None) -> Path:
    codec, pixels, codec_options = CONTAINERS[path.suffix[1:]]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=codec_options)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *frames.shape[1:3], pixels, 12
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame)).reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def test_frames_are_the_centres_of_equal_segments():
    assert spread(80, 8) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert spread(8, 8) == list(range(8))
    assert spread(3, 8) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert spread(1, 4) == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_gives_the_wanted_frames(kind, tmp_path):
    path = write_clip(tmp_path / f"clip.{kind}", clip(40))
    with av.open(str(path)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wanted = [every[i] for i in spread(40, 8)]
    for source in (path, str(path), path.open("rb")):
        np.testing.assert_array_equal(video.read(source).data, wanted)
    np.testing.assert_array_equal(video.read(path.read_bytes(), format=kind).data, wanted)
    assert video.read(path).info["frames_in_source"] == 40
    assert video.claims(path) == 1


def test_frames_are_right_when_packets_do_not_tell_their_times(tmp_path):
    frames = clip(30)
    path = tmp_path / "h264.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    read = video.read(path).data
    assert np.abs(read.astype(int) - frames[spread(30, 8)]).max() < 8


def test_a_long_video_is_reached_by_seeking(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", clip(600, 16, 16))
    decoded = 0
    opened = video_files._seek_frames

    def counting(container, *rest):
        class Counting:
            def seek(self, *a, **k):
                container.seek(*a, **k)

            def decode(self, stream):
                nonlocal decoded
                for frame in container.decode(stream):
                    decoded += 1
                    yield frame

        return opened(Counting(), *rest)

    monkeypatch.setattr(video_files, "_seek_frames", counting)
    sample = video.read(path)
    assert sample.info["frames_in_source"] == 600
    assert decoded < 150
    np.testing.assert_allclose(
        sample.data[:, :, 0].mean(axis=(1, 2)), clip(600, 16, 16)[spread(600, 8), :, 0].mean(axis=(1, 2)), atol=8
    )


def test_short_clips_repeat_their_frames(tmp_path):
    frames = clip(3)
    read = video.read(write_clip(tmp_path / "short.mkv", frames)).data
    np.testing.assert_array_equal(read, frames[[0, 0, 0, 1, 1, 2, 2, 2]])
    np.testing.assert_array_equal(video.read(frames).data, read)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_of_the_file_is_applied(rotation, turns, tmp_path):
    frames = clip(8)
    read = video.read(write_clip(tmp_path / "phone.mp4", frames, rotation=rotation)).data
    upright = np.rot90(frames, turns, axes=(1, 2))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() < 12


def test_arrays_and_lists_of_pictures_are_taken(tmp_path):
    frames = clip(16)
    paths = []
    for i, frame in enumerate(frames):
        paths.append(tmp_path / f"{i:02}.png")
        PIL.Image.fromarray(frame).save(paths[-1])
    wanted = frames[spread(16, 8)]
    for source in (
        frames,
        torch.from_numpy(frames),
        frames / 255,
        list(frames),
        tuple(paths),
        [PIL.Image.fromarray(f) for f in frames],
    ):
        np.testing.assert_array_equal(video.read(source).data, wanted)
    grey = video.read(frames[..., :1]).data
    np.testing.assert_array_equal(grey[..., 2], wanted[..., 0])


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_cut_off_video_is_refused(kind, tmp_path):
    """FFmpeg takes what is left of it for a shorter video: the same file name would give another embedding."""
    options = {"movflags": "faststart"} if kind == "mp4" else None
    whole = write_clip(tmp_path / f"whole.{kind}", clip(30), options=options).read_bytes()
    path = tmp_path / f"cut.{kind}"
    for part in (0.02, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(InputError, match="cut"):
            video.read(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="1 bytes are missing"):
        video.read(path)


def test_files_without_moving_pictures_are_refused(tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="only audio"):
        video.read(sound)
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nsound.mp4\n")
    (tmp_path / "words.mkv").write_text("words")
    (tmp_path / "empty.mov").touch()
    for path in (playlist, tmp_path / "words.mkv", tmp_path / "empty.mov", tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(InputError, match=path.name):
            video.read(path)


def test_arrays_and_lists_that_are_no_clips_are_refused():
    frames = clip(4)
    bad = {
        "3 dimensions": frames[0],
        "no frames": [],
        "no video|no frames": np.zeros((0, 8, 8, 3), np.uint8),
        "channels come last": frames.transpose(0, 3, 1, 2),
        "different sizes": [frames[0], frames[0][:10]],
        "NaN": np.full((2, 8, 8, 3), np.nan),
        "a int": 7,
        "type is not known": b"abc",
    }
    for reason, source in bad.items():
        with pytest.raises(InputError, match=reason):
            video.read(source)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(
        arrays.arrays(
            st.sampled_from([np.uint8, np.int16, np.float32, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
        ),
        st.lists(st.none() | st.integers() | st.just(np.zeros((4, 4, 3), np.uint8)), max_size=3),
        st.sampled_from(
            [b"", b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3", b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1f", b"GIF89a", b"RIFF\0\1\0\0AVI "]
        ).flatmap(lambda head: st.binary(max_size=60).map(lambda rest: head + rest)),
    )
)
def test_wild_inputs_are_read_or_refused(source):
    try:
        sample = video.read(source, format="mp4")
    except InputError:
        return
    assert sample.data.dtype == np.uint8
    assert sample.data.shape[0] == 8


def test_damaged_bytes_never_escape_as_another_error(tmp_path):
    path = tmp_path / "damaged.mp4"
    whole = write_clip(path, clip(12)).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        try:
            assert video.read(path).data.shape[0] == 8
        except InputError:
            refused += 1
    assert refused


def test_frames_are_prepared_as_images_are():
    sample = video.example(2)
    x = video.transform(sample)
    assert x.shape == (8, 3, 224, 224)
    image = Image()
    assert torch.equal(x[3], image.transform(image.read(sample.data[3])))
    assert torch.equal(x, video.transform(sample))
    assert Video(frames=4).transform(sample).shape == (4, 3, 224, 224)


def test_training_cuts_every_frame_alike():
    still = video.read(np.repeat(video.example(0).data[:1], 8, axis=0))
    torch.manual_seed(0)
    x = video.transform(still, train=True)
    assert torch.equal(x[0], x[7])
    assert not torch.equal(x, video.transform(still))
    torch.manual_seed(0)
    assert torch.equal(x, video.transform(still, train=True))


def test_options_survive_json_and_are_checked():
    other = Video(frames=3, size=64)
    assert Video(**json.loads(json.dumps(other.options()))) == other
    assert Video.shares == "image"
    for frames in (0, 1.5, 10_000, None):
        with pytest.raises(OptionError, match="video: frames"):
            Video(frames=frames)


def test_example_survives_writing_and_can_be_looked_at(tmp_path):
    sample = video.example(1)
    read = video.read(video.write(sample, tmp_path, "ball"))
    np.testing.assert_array_equal(read.data, sample.data)
    assert video.describe(read)["frames"] == "8 taken of 8"
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    video.draw(read, axes)
    assert len(axes.texts) == 8
