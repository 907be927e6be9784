"""Sound as it is met: headers that were never finished, telephone codecs, the sound tracks of containers, what is no sound."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from vitlens.errors import InputError
from vitlens.modalities.audio import Audio
from vitlens.modality import guess_modality, importable_modalities

audio = Audio()
TONE = (0.4 * np.sin(np.arange(16000) / 9)).astype(np.float32)
PCM = np.rint(TONE * 32767).astype(np.int16)


def wav(*, riff: int, data: int, order: str = "<", behind: bytes = b"", pcm: np.ndarray = PCM) -> bytes:
    """A WAV file of 16000 Hz by the letter, whose sizes of RIFF and data are as given."""
    head = struct.pack(order + "I", riff) + b"WAVEfmt " + struct.pack(order + "IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    content = pcm.astype(order + "i2").tobytes() + behind
    return (b"RIFF" if order == "<" else b"RIFX") + head + b"data" + struct.pack(order + "I", data) + content


def heard(source: Any, **options: Any) -> np.ndarray:
    """One channel of a source at 16000 Hz."""
    sample = audio.read(source, **options)
    assert sample.data.shape[0] == 1
    assert sample.data.dtype == np.float32
    assert sample.data.flags.c_contiguous
    return sample.data[0]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("riff", "data"), [(0, 0), (36, 0), (0xFFFFFFFF, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0xFFFFFFFF), (32036, 32000)]
)
def test_a_wav_whose_header_was_never_finished_is_heard_to_its_end(riff: int, data: int, order: str) -> None:
    np.testing.assert_allclose(heard(wav(riff=riff, data=data, order=order)), PCM / 32768, atol=1e-6)


def test_a_wav_without_sound_is_told_from_one_that_was_never_finished() -> None:
    none = PCM[:0]
    listed = b"LIST" + struct.pack("<I", 4) + b"INFO"
    for content in (wav(riff=36, data=0, pcm=none), wav(riff=0, data=0, pcm=none), wav(riff=48, data=0, pcm=none, behind=listed)):
        with pytest.raises(InputError, match="no samples"):
            audio.read(content)
    with pytest.raises(InputError, match="never finished: 0 bytes of sound, and 32000 behind it"):
        audio.read(wav(riff=32036, data=0))


@pytest.mark.parametrize("format", ["AIFF", "RF64"])
def test_other_headers_that_say_no_samples_say_why(format: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, TONE, 16000, format=format)
    content = bytearray(file.getvalue())
    if format == "AIFF":
        at = content.find(b"COMM") + 10
        content[at : at + 4] = bytes(4)
        at = content.find(b"SSND") + 4
        content[at : at + 4] = struct.pack(">I", 8)
    else:
        at = content.find(b"ds64") + 8
        content[at : at + 24] = bytes(24)
    with pytest.raises(InputError, match=r"no samples by its header|announces more|never finished"):
        audio.read(bytes(content))


@pytest.mark.parametrize(
    ("format", "codec", "samples"),
    [
        ("WAV", "GSM610", 16000),
        ("W64", "GSM610", 16000),
        ("AIFF", "GSM610", 16000),
        ("WAV", "IMA_ADPCM", 16160),  # its fact chunk counts whole blocks
        ("WAV", "MS_ADPCM", 16000),
        ("AIFF", "IMA_ADPCM", 16000),
        ("WAV", "G721_32", 16000),  # blocks of 120 samples; its fact chunk says how many there are
        ("AU", "G721_32", 16080),
        ("AU", "G723_24", 16080),
        ("WAV", "NMS_ADPCM_16", 16000),
        ("WAV", "ULAW", 16000),
        ("CAF", "ALAC_16", 16000),
    ],
)
def test_codecs_of_telephones_and_games(tmp_path: Path, format: str, codec: str, samples: int) -> None:
    path = tmp_path / f"sound.{format.lower()}"
    soundfile.write(path, TONE, 8000, subtype=codec, format=format)
    sample = audio.read(path)
    assert sample.info["rate"] == 8000
    assert sample.data.shape == (1, samples)
    assert np.corrcoef(sample.data[0, :16000], TONE)[0, 1] > 0.95


def test_big_endian_wav_and_names_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "2021-03-04T12:30:05.wav"
    soundfile.write(path, TONE, 16000, endian="BIG")
    assert path.read_bytes()[:4] == b"RIFX"
    monkeypatch.chdir(tmp_path)
    np.testing.assert_allclose(heard(path.name), TONE, atol=1e-4)
    (tmp_path / "a:b.wav").write_bytes(wav(riff=0, data=0))
    np.testing.assert_allclose(heard("a:b.wav"), PCM / 32768, atol=1e-6)


# --- sound tracks ---


def contained(
    path: Path, codec: str, *, rate: int = 16000, pictures: bool = False, sound: bool = True, format: str | None = None
) -> Path:
    """A file with the tone as its sound track, and three pictures if wanted."""
    with av.open(str(path), "w", format=format) as container:
        if pictures:
            moving = container.add_stream("libvpx-vp9" if path.suffix == ".webm" else "mpeg4", rate=3)
            moving.width, moving.height, moving.pix_fmt = 32, 32, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout="mono") if sound else None
        if codec == "wmav2" and track is not None:
            track.bit_rate = 64000
        if pictures:
            for _ in range(3):
                container.mux(
                    moving.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8)).reformat(format="yuv420p"))
                )
            container.mux(moving.encode())
        if track is not None:
            resampler = av.AudioResampler(format=track.format, layout="mono", rate=rate, frame_size=track.frame_size or 0)
            frame = av.AudioFrame.from_ndarray(TONE[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(track.encode(piece))
            container.mux(track.encode())
    return path


TRACKS = [
    ("sound.m4a", "aac", 16000),
    ("sound.m4a", "alac", 16000),
    ("sound.mp4", "aac", 44100),
    ("sound.mov", "pcm_s16le", 16000),
    ("sound.webm", "libopus", 48000),
    ("sound.mka", "libopus", 48000),
    ("sound.mkv", "aac", 16000),
    ("sound.avi", "pcm_s16le", 16000),
    ("sound.aac", "aac", 16000),
    ("sound.wma", "wmav2", 16000),
    ("sound.amr", "libopencore_amrnb", 8000),
]


@pytest.mark.parametrize(("name", "codec", "rate"), TRACKS)
@pytest.mark.parametrize("pictures", [False, True])
def test_sound_tracks_are_heard(tmp_path: Path, name: str, codec: str, rate: int, pictures: bool) -> None:
    moving = name.rpartition(".")[2] in ("mp4", "mov", "webm", "mkv", "avi")
    if pictures and not moving:
        return
    formats = {"aac": "adts", "mka": "matroska", "wma": "asf"}
    path = contained(tmp_path / name, codec, rate=rate, pictures=pictures, format=formats.get(name.rpartition(".")[2]))
    for source in (path, path.read_bytes()):
        sample = audio.read(source)
        assert sample.info["rate"] == rate
        count = sample.data.shape[1]
        assert abs(count - 16000) <= 4096  # encoders fill up their last frame
        match = np.correlate(sample.data[0, :14000], TONE[:10000]) / np.square(TONE[:10000]).sum()
        assert 0.7 < match.max() < 1.2
    assert guess_modality(path) == ("video" if moving else "audio")
    assert audio.claims(path) == (0.5 if moving else 1)


def test_lossless_tracks_keep_every_sample(tmp_path: Path) -> None:
    for name, codec in (("a.m4a", "alac"), ("a.mka", "pcm_s16le"), ("a.mov", "pcm_s16le")):
        path = contained(tmp_path / name, codec, format="matroska" if name.endswith("mka") else None)
        np.testing.assert_allclose(heard(path)[:16000], TONE, atol=1e-4)


def test_a_container_without_sound_says_so(tmp_path: Path) -> None:
    path = contained(tmp_path / "silent.mp4", "aac", pictures=True, sound=False)
    with pytest.raises(InputError, match=r"no sound in it \(only video\)"):
        audio.read(path)
    with pytest.raises(InputError, match=r"no video in it \(only audio\).*read as audio"):
        importable_modalities()["video"]().read(contained(tmp_path / "heard.mp4", "aac"))


@pytest.mark.parametrize("name", ["sound.m4a", "sound.mov", "sound.mka", "sound.avi", "sound.wma"])
def test_containers_that_are_cut_off_are_refused(tmp_path: Path, name: str) -> None:
    codec = {"wma": "wmav2", "m4a": "aac", "mka": "aac"}.get(name.rpartition(".")[2], "pcm_s16le")
    formats = {"mka": "matroska", "wma": "asf"}
    whole = contained(tmp_path / name, codec, format=formats.get(name.rpartition(".")[2])).read_bytes()
    for kept in (0.6, 0.97):
        with pytest.raises(InputError, match="cut"):
            audio.read(whole[: int(len(whole) * kept)])


def test_playlists_are_never_followed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", TONE, 16000)
    for name, content in {
        "list.m4a": "#EXTM3U\n#EXTINF:1,\nsecret.wav\n",
        "list.aac": "ffconcat version 1.0\nfile secret.wav\n",
        "list.mp3": "#EXTM3U\nsecret.wav\n",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError):
            audio.read(tmp_path / name)


# --- arrays, noise, size ---


@pytest.mark.parametrize(("largest", "words"), [(1 << 15, "range of int16"), ((1 << 15) + 1, "24 bits"), (1 << 23, "24 bits")])
def test_32_bit_integers_that_hold_fewer_bits_are_asked_about(largest: int, words: str) -> None:
    values = np.zeros(1600, np.int32)
    values[7] = -largest
    with pytest.raises(InputError, match=words):
        audio.read(values, rate=16000)


def test_32_bit_integers_that_fill_their_range_are_heard() -> None:
    values = (TONE * 2**31).astype(np.int32)
    np.testing.assert_allclose(heard(values, rate=16000), TONE, atol=1e-6)
    np.testing.assert_allclose(heard((TONE * 2**23).astype(np.int32) * 256, rate=16000), TONE, atol=1e-6)


def test_damaged_sound_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = {"mp3": None, "flac": None, "ogg": None, "m4a": "aac", "wma": "wmav2", "amr": "libopencore_amrnb"}
    for kind, codec in names.items():
        path = tmp_path / f"sound.{kind}"
        if codec is None:
            soundfile.write(path, TONE, 16000)
        else:
            contained(path, codec, rate=8000 if kind == "amr" else 16000, format="asf" if kind == "wma" else None)
        content = bytearray(path.read_bytes())
        for at in range(100, len(content), 311):
            content[at] ^= 255
        with contextlib.suppress(InputError):
            audio.read(bytes(content))
    assert capfd.readouterr() == ("", "")


def test_sound_that_would_take_all_memory_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(2_000_000, np.int16), 16000)
    monkeypatch.setenv("VITLENS_READ_GIB", "0.001")
    with pytest.raises(InputError, match=r"0\.0 hours of 1 channel.*VITLENS_READ_GIB"):
        audio.read(tmp_path / "long.wav")


def test_a_long_file_keeps_every_sample(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (1_300_000, 2), dtype=np.int16)
    for name in ("long.wav", "long.flac"):
        soundfile.write(tmp_path / name, values, 48000, subtype="PCM_16")
        np.testing.assert_array_equal(audio.read(tmp_path / name).data, values.T / np.float32(32768))
