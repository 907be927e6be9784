"""Audio: the published preprocessing to the last digit, and one clear error for whatever cannot be heard."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.golden import REFERENCE, arrays, module
from vitlens.errors import InputError, OptionError
from vitlens.modalities import audio_features
from vitlens.modalities.audio import Audio, _resample

REPORT = json.loads((REFERENCE / "golden_preproc_report.json").read_text())
FORMATS = ["wav", "flac", "ogg", "mp3", "aiff", "au", "w64", "rf64", "caf"]
audio = Audio()


inputs = module("golden_preproc_formula/inputs")


def tone(rate: int, seconds: float, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    time = np.arange(round(rate * seconds)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * hertz * (c + 1) * time) for c in range(channels)]).astype(np.float32)


def encoded(format: str, seconds: float = 1.0, channels: int = 2) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(44100, seconds, channels).T, 44100, format=format.upper())
    return file.getvalue()


# --- the published preprocessing ---


@pytest.fixture(params=["torchaudio", "own"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filter banks and resampling by torchaudio, and by what steps in for it."""
    if request.param == "own":
        monkeypatch.setattr(audio_features, "has_torchaudio", lambda: False)
    elif not audio_features.has_torchaudio():
        pytest.skip("no torchaudio for this torch: pip install 'vitlens[torchaudio]' runs this")


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("seconds", [3, 5, 12])
@pytest.mark.parametrize(("kind", "rate", "channels"), [("16k_mono", 16000, 1), ("44k_stereo", 44100, 2)])
def test_filter_banks_match_the_reference(tmp_path: Path, kind: str, rate: int, channels: int, seconds: int) -> None:
    path = tmp_path / "chirp.wav"
    soundfile.write(path, inputs.pcm16(inputs.chirp(rate, seconds, channels)), rate)
    name = f"audio_{kind}_{seconds}s"
    golden = np.load(REFERENCE / "golden_preproc_formula" / f"{name}.npz")
    ours = audio.transform(audio.read(path)).numpy()
    assert ours.shape == (3, 512, 128)
    assert ours.dtype == np.float32
    step = 4 if seconds == 12 else 2
    theirs = np.broadcast_to(golden["fbank"], (3, 512 // step, 128 // step))
    error = np.abs(ours[:, ::step, ::step] - theirs)
    assert error.max() < 4e-3  # in bins that hold nothing but rounding noise, whose logarithm is what is compared
    assert error[theirs > -1.5].max() < 5e-4
    stats = REPORT[f"golden_preproc_formula/{name}"]["stats"]
    np.testing.assert_allclose([ours.mean(), ours.std(), ours.min()], [stats["mean"], stats["std"], stats["min"]], atol=1e-4)


@pytest.mark.usefixtures("both_ways")
def test_a_later_window_of_a_repeated_sound_matches_the_reference() -> None:
    golden = np.load(REFERENCE / "golden_preproc_formula" / "audio_16k_mono_3s.npz")["fbank_start_max"]
    late = np.roll(inputs.pcm16(inputs.chirp(16000, 3, 1))[:, 0], -15999)  # a repeated sound is periodic
    ours = audio.transform(audio.read(late, rate=16000)).numpy()
    assert np.abs(ours[:1, ::2, ::2] - golden).max() < 4e-3


@pytest.mark.usefixtures("both_ways")
def test_resampling_matches_the_reference() -> None:
    golden = np.load(REFERENCE / "golden_preproc_formula" / "audio_resample_44k_stereo_3s.npz")["wave_every_5"]
    wave = torch.from_numpy(audio.read(inputs.pcm16(inputs.chirp(44100, 3, 2)).T, rate=44100).data)
    ours = np.stack([_resample(channel, Fraction(160, 441), 0, 48000) for channel in wave])
    np.testing.assert_allclose(ours[:, ::5], golden, atol=1e-6)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("seconds", ["5.5", "7.0", "10.0", "60.25"])
def test_clips_start_where_the_reference_starts_them(seconds: str) -> None:
    sweep = np.sin(np.cumsum(np.linspace(0.05, 2.5, int(float(seconds) * 16000)))).astype(np.float32)
    clips = audio.transform(audio.read(sweep, rate=16000))
    for clip, (start, end) in zip(clips, REPORT["clip_timepoints_5s_3clips"][seconds], strict=True):
        alone = audio.transform(audio.read(sweep[int(start * 16000) : int(end * 16000)], rate=16000))
        torch.testing.assert_close(clip, alone[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("samples", [int(n) for n in REPORT["short_audio_samples_16k"]])
def test_shortest_sound(samples: int) -> None:
    sample = audio.read(tone(16000, 1)[:, :samples], rate=16000)
    if isinstance(REPORT["short_audio_samples_16k"][str(samples)], str):
        with pytest.raises(InputError, match=r"at least 0\.15625 s"):
            audio.transform(sample)
    else:
        assert audio.transform(sample).shape == (3, 512, 128)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44101, 48000, 96000])
def test_any_rate_gives_the_same_spectrogram(rate: int) -> None:
    spectrum = audio.transform(audio.read(tone(rate, 2, hertz=1000), rate=rate))[0, 100]
    expected = audio.transform(audio.read(tone(16000, 2, hertz=1000), rate=16000))[0, 100]
    assert spectrum.argmax() == expected.argmax()
    torch.testing.assert_close(spectrum.max(), expected.max(), atol=0.01, rtol=0)


@settings(max_examples=25, deadline=None)
@given(rate=st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000]), start=st.integers(0, 9000), length=st.integers(1, 9000))
def test_resampling_a_part_equals_the_part_of_the_resampled(rate: int, start: int, length: int) -> None:
    speed = Fraction(16000, rate)
    wave = torch.from_numpy(np.random.default_rng(rate).standard_normal(rate).astype(np.float32))
    whole = audio_features.resample(wave, speed.numerator, speed.denominator)
    torch.testing.assert_close(_resample(wave, speed, start, start + length), whole[start : start + length], atol=1e-5, rtol=0)


def test_channels_are_taken_or_mixed_as_asked() -> None:
    stereo = tone(16000, 5, 2)
    left, mixed = audio.read(stereo[0], rate=16000), audio.read(stereo.mean(0), rate=16000)
    sample = audio.read(stereo, rate=16000)
    torch.testing.assert_close(audio.transform(sample), audio.transform(left))
    torch.testing.assert_close(Audio(mono="mean").transform(sample), audio.transform(mixed))


def test_silence_is_heard_as_silence() -> None:
    clips = audio.transform(audio.read(np.zeros(80000, np.int16), rate=16000))
    assert torch.isfinite(clips).all()
    assert (clips[:, :498] == clips[0, 0, 0]).all()


def test_training_draws_from_torch_alone() -> None:
    sample = audio.example()
    torch.manual_seed(3)
    first = audio.transform(sample, train=True)
    np.random.seed(0)
    torch.manual_seed(3)
    again = audio.transform(sample, train=True)
    other = audio.transform(sample, train=True)
    assert first.shape == (1, 512, 128)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(audio.transform(sample), audio.transform(sample))


# --- tokens ---


def manifest(name: str, prefix: str = "visual.visual_adapter.") -> dict[str, Any]:
    keys = json.loads((REFERENCE / name).read_text())
    keys = keys.get("keys", keys)
    return {key: value for key, value in keys.items() if key.startswith(prefix)}


def test_tokens_match_the_reference() -> None:
    embed: Any = audio.build_embed(128, SimpleNamespace(patch_size=14))  # type: ignore[arg-type]
    weights = module("fill").fill(manifest("golden_forward/keys_tiny_audio.json"))
    embed.load_state_dict({key.rsplit("visual_adapter.")[-1]: torch.from_numpy(value) for key, value in weights.items()})
    golden = arrays("audio")
    with torch.no_grad():
        tokens, positions = embed.split(torch.from_numpy(module("golden_forward/inputs").audio()))
    assert tokens.shape == (2, 600, 128)
    np.testing.assert_allclose(tokens[:, ::16], golden["tok_x"], atol=1e-5)
    np.testing.assert_allclose(positions[::16].detach(), golden["tok_pos"], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "width", "patch"), [("keys_train_audio.json", 1024, 14), ("keys_train_vitlensB_audio_inferred.json", 768, 16)]
)
def test_weights_are_laid_out_as_published(name: str, width: int, patch: int) -> None:
    embed = audio.build_embed(width, SimpleNamespace(patch_size=patch))  # type: ignore[arg-type]
    expected = {key.rsplit("visual_adapter.")[-1]: list(shape) for key, (shape, _) in manifest(name).items()}
    assert {key: list(value.shape) for key, value in embed.state_dict().items()} == expected


def test_a_patch_larger_than_the_spectrogram_is_refused() -> None:
    with pytest.raises(OptionError, match="64 mel bins"):
        Audio(mel_bins=64).build_embed(8, SimpleNamespace(patch_size=80))  # type: ignore[arg-type]


# --- reading ---


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_every_format_are_read(tmp_path: Path, format: str) -> None:
    content = encoded(format)
    path = tmp_path / f"tone.{format}"
    path.write_bytes(content)
    for source in (path, str(path), io.BytesIO(content), content, path.open("rb")):
        sample = audio.read(source)
        assert sample.data.shape == (2, 44100)
        assert sample.data.dtype == np.float32
        assert sample.info["rate"] == 44100
        assert np.abs(sample.data - tone(44100, 1, 2)).mean() < 0.02
    assert audio.claims(path) == 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0.6, 0.97])
def test_truncated_files_are_refused(tmp_path: Path, format: str, kept: float) -> None:
    content = encoded(format, seconds=3)
    path = tmp_path / f"cut.{format}"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match="cut") as caught:
        audio.read(path)
    assert str(path) in str(caught.value)
    assert "flac" in caught.value.accepted


def test_streams_that_do_not_say_how_long_they_are() -> None:
    mp3 = encoded("mp3", seconds=3)
    second = mp3.find(b"\xff\xfb", 4)  # without its first frame the Xing count is gone
    assert b"Xing" in mp3[:second]
    assert abs(audio.read(mp3[second:]).data.shape[1] - 3 * 44100) < 3 * 1152
    flac = bytearray(encoded("flac"))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    np.testing.assert_array_equal(audio.read(bytes(flac)).data, audio.read(encoded("flac")).data)
    wav = bytearray(encoded("wav"))
    size = wav.find(b"data") + 4
    wav[size : size + 4] = wav[4:8] = struct.pack("<I", 0xFFFFFFFF)
    assert audio.read(bytes(wav)).data.shape == (2, 44100)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_integer_samples_are_scaled_by_their_full_range(dtype: str) -> None:
    info = np.iinfo(dtype)
    middle = 128 if dtype == "uint8" else 0
    sample = audio.read(np.array([info.min, middle, info.max] * 10, dtype), rate=16000)
    np.testing.assert_allclose(sample.data[0, :3], [-1, 0, 1], atol=0.01)
    assert sample.data.dtype == np.float32


def test_tensors_and_lists_of_dimensions() -> None:
    assert audio.read(torch.zeros(100, dtype=torch.bfloat16), rate=8000).data.shape == (1, 100)
    assert audio.load({"source": torch.zeros(2, 100), "rate": 8000}).info["rate"] == 8000


WAVE = np.zeros((1, 1600), np.float32)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (WAVE, {}, "array without its rate"),
        (WAVE, {"rate": 0}, "a rate of 0"),
        (WAVE, {"rate": -16000}, "a rate of -16000"),
        (WAVE, {"rate": 16}, "a rate of 16"),
        (WAVE, {"rate": float("nan")}, "a rate of nan"),
        (WAVE, {"rate": 1e9}, "a rate of"),
        (WAVE, {"rate": "16k"}, "a rate of '16k'"),
        (WAVE[:, :0], {"rate": 16000}, "no samples"),
        (WAVE.T, {"rate": 16000}, "transpose"),
        (np.zeros((65, 1600)), {"rate": 16000}, "at most 64 channels"),
        (WAVE[None], {"rate": 16000}, "3 dimensions"),
        (np.full(1600, np.nan), {"rate": 16000}, "1600 of 1600 values are NaN"),
        (np.r_[np.zeros(1599), np.inf], {"rate": 16000}, "1 of 1600 values are NaN or infinite"),
        (np.full(1600, 12000.0), {"rate": 16000}, "never scaled"),
        (np.full(1600, 12000), {"rate": 16000}, "int64 samples"),
        (np.full(1600, 12000, np.int32), {"rate": 16000}, "range of int16"),
        (np.zeros(1600, bool), {"rate": 16000}, "values of type bool"),
        (np.zeros(1600, complex), {"rate": 16000}, "values of type complex128"),
        (np.broadcast_to(np.float32(0), (1, 13 * 3600 * 16000)), {"rate": 16000}, "13.0 hours"),
        ([0.0, 0.1], {"rate": 16000}, "a list"),
        (None, {}, "a NoneType"),
        ("missing.wav", {}, "no such file"),
        (b"", {}, "an empty file"),
        (b"not sound at all" * 100, {}, "cannot be decoded"),
        (io.StringIO("text"), {}, "text mode"),
    ],
)
def test_bad_inputs_say_what_is_wrong(source: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        audio.read(source, **options)
    assert words in str(caught.value)
    assert "rate= in hertz" in caught.value.accepted


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    def wav(data: np.ndarray, name: str, rate: int = 16000, subtype: str = "FLOAT") -> Path:
        soundfile.write(tmp_path / name, data, rate, subtype=subtype)
        return tmp_path / name

    for path, options, words in [
        (wav(np.full(1600, np.nan), "nan.wav"), {}, "NaN"),
        (wav(np.full(1600, 9000.0), "loud.wav"), {}, "never scaled"),
        (wav(np.zeros(0), "none.wav"), {}, "no samples"),
        (wav(np.zeros((1600, 70)), "many.wav"), {}, "70 channels"),
        (wav(np.zeros(1600), "slow.wav", 500), {}, "a rate of 500"),
        (wav(np.zeros(1600), "other.wav"), {"rate": 8000}, "a file of 16000 Hz, but rate=8000"),
        (tmp_path, {}, "a folder"),
    ]:
        with pytest.raises(InputError) as caught:
            audio.read(path, **options)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "complex64", "U3"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70),
    ),
    st.one_of(st.none(), st.integers(-5, 200000), st.floats(), st.text(max_size=3)),
)
def test_no_array_raises_anything_but_an_input_error(array: np.ndarray, rate: Any) -> None:
    try:
        sample = audio.read(array, rate=rate)
    except InputError:
        return
    assert sample.data.dtype == np.float32
    assert sample.data.ndim == 2
    assert np.abs(sample.data).max() <= 8


HEADERS = [
    b"",
    b"RIFF\x00\x10\x00\x00WAVEfmt ",
    b"fLaC\x00\x00\x00\x22",
    b"OggS\x00\x02",
    b"ID3\x04\x00\x00",
    b"\xff\xfb\x90\x44",
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(HEADERS), st.binary(min_size=0, max_size=600))
def test_no_bytes_raise_anything_but_an_input_error(header: bytes, content: bytes) -> None:
    try:
        sample = audio.read(header + content)
    except InputError:
        return
    assert np.isfinite(sample.data).all()


CONTENTS = {format: encoded(format, 0.5) for format in FORMATS}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.floats(0, 1), st.integers(0, 255))
def test_damaged_files_raise_nothing_but_an_input_error(format: str, where: float, value: int) -> None:
    content = bytearray(CONTENTS[format])
    at = int(where * (len(content) - 1))
    content[at] = value
    for damaged in (content, content[:at]):
        try:
            sample = audio.read(bytes(damaged))
        except InputError:
            continue
        assert np.isfinite(sample.data).all()


# --- examples, options, pictures ---


def test_example_is_written_and_read_back(tmp_path: Path) -> None:
    sample = audio.example(5)
    assert np.array_equal(sample.data, audio.example(5).data)
    assert not np.array_equal(sample.data, audio.example(6).data)
    back = audio.read(audio.write(sample, tmp_path, "bird"))
    assert np.array_equal(back.data, sample.data)
    assert back.info == sample.info
    described = {"duration": "3.00 s", "rate": "44100 Hz", "channels": "stereo", "peak": "-0.9 dBFS"}
    assert audio.describe(back) == described
    assert any("16000 Hz" in step for step in audio.steps())


@pytest.mark.parametrize("seconds", [0.01, 3, 70])
def test_spectrogram_is_drawn_in_seconds_and_kilohertz(seconds: float) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    audio.draw(audio.read(tone(22050, seconds), rate=22050), axes)
    assert axes.get_ylabel() == "frequency (kHz)"
    assert axes.get_xlim()[1] == pytest.approx(min(max(seconds, 0.05), 60), abs=0.01)
    row = np.asarray(axes.images[0].get_array())[:, 0].argmax()
    ticks = dict(zip([t.get_text() for t in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert ticks["0.25"] < row < ticks["0.5"]


def test_options_travel_as_json() -> None:
    other = Audio(clips=1, clip_seconds=2, frames=198, mel_bins=64, mono="mean", stride=8)
    assert Audio(**json.loads(json.dumps(other.options()))) == other
    assert other.transform(other.example()).shape == (1, 198, 64)
    assert audio.read_options() == ["rate", "format"]


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": 16000.5},
        {"clips": 0},
        {"clips": True},
        {"clip_seconds": -1},
        {"clip_seconds": float("nan")},
        {"mel_bins": "128"},
        {"std": 0},
        {"mono": "left"},
    ],
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Audio(**options)
