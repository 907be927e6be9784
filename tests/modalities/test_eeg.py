"""EEG: the published window, channels by name, volts checked, and one clear error for whatever is not a recording."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mne
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.golden import REFERENCE, arrays, module
from vitlens.errors import InputError, OptionError
from vitlens.modalities.eeg import EEG

inputs = module("golden_preproc_formula/inputs")
eeg = EEG()
NAMES = ["Fp1", "Fp2", "C3", "Cz", "C4", "O1", "Oz", "O2"]
small = EEG(channels=8)


def volts(channels: int = 8, samples: int = 2000, seed: int = 0) -> np.ndarray:
    """A smooth, lively recording of some 20 microvolts, reproducible."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 1000
    waves = sum(np.sin(2 * np.pi * (f * time + rng.uniform(size=(channels, 1)))) for f in (2.3, 7.1, 10.4))
    return 1e-5 * (waves + 0.1 * rng.standard_normal((channels, samples)))


def raw(names: list[str] = NAMES, kinds: str | list[str] = "eeg", **options: Any) -> mne.io.RawArray:
    with mne.use_log_level("ERROR"):
        return mne.io.RawArray(volts(len(names), **options), mne.create_info(names, 1000.0, kinds))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same recording in every format that can be written here. (A .cnt can only be read.)"""
    folder = tmp_path_factory.mktemp("eeg")
    recording = raw()
    with mne.use_log_level("ERROR"):
        recording.set_montage("standard_1020")
        recording.save(folder / "a_raw.fif")
        for format in ("edf", "bdf", "vhdr", "set"):
            mne.export.export_raw(folder / f"a.{format}", recording)
        epochs = mne.make_fixed_length_epochs(recording, 0.5, preload=True).shift_time(-0.1)
        epochs.save(folder / "a-epo.fif")
        mne.export.export_epochs(folder / "trials.set", epochs)
    return {path.name: path for path in folder.iterdir()}


RAW_FILES = ["a_raw.fif", "a.edf", "a.bdf", "a.vhdr", "a.set"]


# --- the published preprocessing ---


@pytest.mark.parametrize(("samples", "step", "short"), [(500, (4, 2), "error"), (460, (8, 4), "error"), (400, (8, 4), "stretch")])
def test_windows_match_the_reference(samples: int, step: tuple[int, int], short: Any) -> None:
    golden = np.load(REFERENCE / "golden_preproc_formula" / f"eeg_128x{samples}.npz")["x"]
    stretching = EEG(short=short)
    sample = stretching.read(inputs.eeg(128, samples), rate=1000, unit="standardized")
    ours = stretching.transform(sample).numpy()
    assert ours.shape == (128, 512)
    np.testing.assert_allclose(ours[:: step[0], :: step[1]], golden, atol=2e-6)


def test_a_window_that_was_not_recorded_is_refused_unless_it_is_nearly_full() -> None:
    values = inputs.eeg(128, 500)
    assert eeg.transform(eeg.read(values[:, :450], rate=1000, unit="standardized")).shape == (128, 512)
    with pytest.raises(InputError, match=r"380 of the 440 samples from 0\.02 to 0\.46 s.*short='stretch'"):
        eeg.transform(eeg.read(values[:, :400], rate=1000, unit="standardized"))
    with pytest.raises(InputError, match="1 of the 440"):
        EEG(short="stretch").transform(eeg.read(values[:, :21], rate=1000, unit="standardized"))


def test_volts_are_standardized_over_the_recording_whatever_their_unit() -> None:
    data = volts()
    window = small.transform(small.read(data, rate=1000))
    z = (data - data.mean(1, keepdims=True)) / data.std(1, keepdims=True)
    np.testing.assert_allclose(window[:, 0], z[:, 20], atol=1e-4)
    np.testing.assert_allclose(window[:, -1], z[:, 459], atol=1e-4)
    microvolts = small.read(1e6 * data, rate=1000, unit="uV")
    torch.testing.assert_close(small.transform(microvolts), window, atol=1e-4, rtol=0)
    plain = EEG(channels=8, standardize=False)
    np.testing.assert_allclose(plain.transform(plain.read(data, rate=1000))[:, 0], data[:, 20], rtol=1e-5)


def test_a_window_starts_where_it_is_told() -> None:
    data = volts()
    later = EEG(channels=8, standardize=False)
    window = later.transform(later.read(data, rate=1000, start=1.0))
    np.testing.assert_allclose(window[:, [0, -1]], data[:, [1020, 1459]], rtol=1e-5)
    with pytest.raises(InputError, match=r"start 2\.5 s is outside its 2 s"):
        later.read(data, rate=1000, start=2.5)


@pytest.mark.parametrize("rate", [250.0, 512.0, 2048.0, 999.4])
def test_recordings_of_another_rate_are_resampled(rate: float) -> None:
    def recording(rate: float) -> np.ndarray:
        time = np.arange(round(2 * rate)) / rate
        return 2e-5 * np.stack([np.sin(2 * np.pi * 10 * time + c) for c in range(8)]) + 0.005  # an electrode's offset

    theirs = small.transform(small.read(recording(rate), rate=rate, start=0.7))
    ours = small.transform(small.read(recording(1000), rate=1000, start=0.7))
    torch.testing.assert_close(theirs, ours, atol=0.03, rtol=0)


def test_what_the_model_s_rate_cannot_hold_is_filtered_away() -> None:
    time = np.arange(8000) / 4000
    hum = 2e-5 * np.sin(2 * np.pi * 10 * time) + 2e-5 * np.sin(2 * np.pi * 990 * time)  # 990 Hz would fold onto 10 Hz
    one = EEG(channels=1, standardize=False)
    window = one.transform(one.read(hum[None], rate=4000))
    assert abs(window.abs().max() - 2e-5) < 2e-6


def test_band_pass_keeps_the_band() -> None:
    time = np.arange(4000) / 1000
    data = 1e-5 * np.stack([np.sin(2 * np.pi * f * time) for f in (1, 20, 200)])
    band = EEG(channels=3, standardize=False, band=(5, 95))
    slow, kept, fast = band.transform(band.read(data, rate=1000, start=2.0)).abs().amax(1) / 1e-5
    assert kept > 0.95
    assert slow < 0.05
    assert fast < 0.1


def test_training_moves_the_window_and_draws_from_torch_alone() -> None:
    sample = small.read(volts(), rate=1000, start=0.5)
    torch.manual_seed(1)
    first = small.transform(sample, train=True)
    np.random.seed(0)
    torch.manual_seed(1)
    assert torch.equal(first, small.transform(sample, train=True))
    assert not torch.equal(first, small.transform(sample, train=True))
    calm = small.transform(sample)
    assert torch.equal(calm, small.transform(sample))
    assert torch.corrcoef(torch.stack([first[0], calm[0]]))[0, 1] > 0.5


# --- tokens ---


def test_tokens_match_the_reference() -> None:
    embed: Any = eeg.build_embed(128, SimpleNamespace(patch_size=14))  # type: ignore[arg-type]
    keys = json.loads((REFERENCE / "golden_forward" / "keys_tiny_eeg.json").read_text())
    prefix = "visual.visual_adapter."
    weights = module("fill").fill({key: value for key, value in keys.get("keys", keys).items() if key.startswith(prefix)})
    embed.load_state_dict({key.removeprefix(prefix): torch.from_numpy(value) for key, value in weights.items()})
    golden = arrays("eeg")
    with torch.no_grad():
        tokens, positions = embed.split(torch.from_numpy(module("golden_forward/inputs").eeg()))
    assert tokens.shape == (2, 512, 128)
    np.testing.assert_allclose(tokens[:, ::16], golden["tok_x"], atol=1e-5)
    np.testing.assert_allclose(positions[::16].detach(), golden["tok_pos"], atol=1e-7)


def test_weights_are_laid_out_as_published() -> None:
    keys = json.loads((REFERENCE / "keys_train_eeg.json").read_text())["keys"]
    expected = {key.rsplit("visual_adapter.")[-1]: list(value[0]) for key, value in keys.items() if "visual_adapter" in key}
    embed = eeg.build_embed(1024, SimpleNamespace(patch_size=14))  # type: ignore[arg-type]
    assert {key: list(value.shape) for key, value in embed.state_dict().items()} == expected


# --- recordings ---


@pytest.mark.parametrize("name", RAW_FILES)
def test_recordings_of_every_format_are_read_in_volts(recordings: dict[str, Path], name: str) -> None:
    sample = small.read(recordings[name])
    assert sample.data.shape == (8, 2000)
    assert sample.data.dtype == np.float32
    np.testing.assert_allclose(sample.data, volts(), atol=2e-9)
    assert sample.info == {"rate": 1000, "channels": NAMES, "unit": "V", "start": 0}
    assert small.claims(recordings[name]) == 1


@pytest.mark.parametrize("name", ["a_raw.fif", "a.edf", "a.bdf", "a.set"])
def test_file_objects_and_bytes_are_read(recordings: dict[str, Path], name: str) -> None:
    path = recordings[name]
    expected = small.read(path).data
    with path.open("rb") as file:
        assert np.array_equal(small.read(file).data, expected)
    assert np.array_equal(small.read(path.read_bytes(), format=path.suffix).data, expected)
    with pytest.raises(InputError, match="whose type is not known"):
        small.read(path.read_bytes())


def test_a_brainvision_header_needs_the_files_beside_it(recordings: dict[str, Path], tmp_path: Path) -> None:
    with recordings["a.vhdr"].open("rb") as file, pytest.raises(InputError, match="without the files beside it"):
        small.read(file)
    shutil.copy(recordings["a.vhdr"], tmp_path)
    with pytest.raises(InputError, match=r"its data file a\.eeg is not beside it"):
        small.read(tmp_path / "a.vhdr")
    with pytest.raises(InputError, match=r"type \.eeg.*by its vhdr"):
        small.read(recordings["a.eeg"])


@pytest.mark.parametrize("name", ["a-epo.fif", "trials.set"])
def test_an_epoch_starts_at_its_event(recordings: dict[str, Path], name: str) -> None:
    sample = small.read(recordings[name], epoch=2)
    assert sample.data.shape == (8, 500)
    assert sample.info["start"] == pytest.approx(0.1)
    np.testing.assert_allclose(sample.data, volts()[:, 1000:1500], atol=2e-9)
    with pytest.raises(InputError, match="epoch 4 of 4"):
        small.read(recordings[name], epoch=4)


@pytest.mark.parametrize("name", ["a_raw.fif", "a.edf", "a.bdf", "a.set"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9])
def test_truncated_recordings_are_refused(recordings: dict[str, Path], tmp_path: Path, name: str, kept: float) -> None:
    content = recordings[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError) as caught:
        small.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [63999, 32000, 0])
def test_truncated_brainvision_data_is_refused(recordings: dict[str, Path], tmp_path: Path, kept: int) -> None:
    for name in ("a.vhdr", "a.vmrk", "a.eeg"):
        shutil.copy(recordings[name], tmp_path)
    header = tmp_path / "a.vhdr"
    markers = tmp_path / "a.vmrk"
    markers.write_text(markers.read_text(encoding="utf-8") + "Mk2=Stimulus,S  1,1900,1,0\n", encoding="utf-8")
    content = (tmp_path / "a.eeg").read_bytes()
    assert len(content) == 64000
    assert small.read(header).data.shape == (8, 2000)
    (tmp_path / "a.eeg").write_bytes(content[:kept])
    with pytest.raises(InputError, match="truncated recording"):
        small.read(header)


@pytest.mark.parametrize("format", ["edf", "bdf", "vhdr", "fif", "set", "cnt", "npy", "npz"])
def test_garbage_is_refused(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"garbage.{format}"
    for content in (b"", b"garbage" * 3, bytes(range(256)) * 20):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            small.read(path)
        assert str(path) in str(caught.value)


# --- channels ---


def test_channels_are_found_by_name_in_the_model_s_order(tmp_path: Path) -> None:
    recording = raw(["EEG Fp1-REF", "fz.", "CZ", "VEOG", "Oz", "Status"], ["eeg", "eeg", "eeg", "eog", "eeg", "stim"])
    with mne.use_log_level("ERROR"):
        recording.save(tmp_path / "mixed_raw.fif")
    data = recording.get_data()
    ordered = EEG(channels=3, names=["Oz", "Fp1", "Fz"])
    sample = ordered.read(tmp_path / "mixed_raw.fif")
    assert sample.info["channels"] == ["Oz", "EEG Fp1-REF", "fz."]
    np.testing.assert_allclose(sample.data, data[[4, 0, 1]], rtol=1e-5)
    assert EEG(channels=4).read(tmp_path / "mixed_raw.fif").data.shape == (4, 2000)  # the eye and the trigger do not count
    rows = ordered.read(data, rate=1000, channels=recording.ch_names)
    np.testing.assert_allclose(rows.data, sample.data, rtol=1e-5)


def test_missing_channels_of_no_known_place_are_listed_with_close_matches() -> None:
    wanted = EEG(channels=4, names=["Fp1", "T7", "Fpz", "XX1"])
    with pytest.raises(InputError, match=r"no channel XX1 \(close: XX2\).*place on the head that is not known"):
        wanted.read(volts(4), rate=1000, channels=["Fp1", "XX2", "T3", "Oz"])
    with pytest.raises(InputError, match="more than one channel Fp1"):
        EEG(channels=1, names=["Fp1"]).read(volts(2), rate=1000, channels=["Fp1", "FP1."])
    with pytest.raises(InputError, match="3 rows without names"):
        wanted.read(volts(3), rate=1000)


def test_another_number_of_channels_is_refused(recordings: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"8 EEG channels \(Fp1, .*128 channels, or say which with the option names="):
        eeg.read(recordings["a.edf"])
    with pytest.raises(InputError, match="7 rows, but the model takes 8"):
        small.read(volts(7), rate=1000)
    with pytest.raises(InputError, match="transpose"):
        small.read(volts().T, rate=1000)


def test_a_recording_without_eeg_is_refused(tmp_path: Path) -> None:
    with mne.use_log_level("ERROR"):
        raw(["MISC 1", "STI 1"], ["misc", "stim"]).save(tmp_path / "none_raw.fif")
    with pytest.raises(InputError, match="no EEG channels, only misc, stim"):
        small.read(tmp_path / "none_raw.fif")


# --- arrays ---


def test_arrays_tensors_and_their_files(tmp_path: Path) -> None:
    data = volts().astype(np.float32)
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "a.npz", other=data[:2], trial=data)
    for source, options in [
        (data, {}),
        (torch.from_numpy(data), {}),
        (tmp_path / "a.npy", {}),
        (tmp_path / "a.npz", {"key": "trial"}),
    ]:
        assert np.array_equal(small.read(source, rate=1000, **options).data, data)
    assert small.load({"source": data, "rate": 500}).info["rate"] == 500
    with pytest.raises(InputError, match="say which with key="):
        small.read(tmp_path / "a.npz", rate=1000)


V = volts()


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (V, {}, "array without its rate"),
        (V, {"rate": 0}, "a rate of 0"),
        (V, {"rate": float("nan")}, "a rate of nan"),
        (V, {"rate": "1 kHz"}, "a rate of '1 kHz'"),
        (1e6 * V, {"rate": 1000}, "probably microvolts"),
        (1e6 * V, {"rate": 1000}, "unit='uV'"),
        (1e4 * V, {"rate": 1000}, "unit='mV'"),
        (V, {"rate": 1000, "unit": "uV"}, "too small for an EEG in uV"),
        (V, {"rate": 1000, "unit": "standardized"}, "not by about 1"),
        (0 * V, {"rate": 1000}, "a flat recording"),
        (np.full_like(V, 3), {"rate": 1000}, "a flat recording"),
        (V[:, :0], {"rate": 1000}, "no values"),
        (V[:0], {"rate": 1000}, "no values"),
        (V[0], {"rate": 1000}, "shape [2000]"),
        (V[None], {"rate": 1000}, "shape [1, 8, 2000]"),
        (np.where(V > 2e-5, np.nan, V), {"rate": 1000}, "NaN or infinite"),
        (V > 0, {"rate": 1000}, "values of type bool"),
        (V.astype(complex), {"rate": 1000}, "values of type complex128"),
        (V, {"rate": 1000, "channels": NAMES[:3]}, "8 rows, but channels=["),
        (V, {"rate": 1000, "channels": "Fp1"}, "8 rows, but channels='Fp1'"),
        (np.broadcast_to(np.float32(0), (8, 1 << 27)), {"rate": 1000}, "cut it into parts"),
        ("missing.edf", {}, "no such file"),
        (None, {}, "a NoneType"),
        ([1, 2], {"rate": 1000}, "a list"),
        (io.BytesIO(b"abc"), {}, "whose type is not known"),
    ],
)
def test_bad_inputs_say_what_is_wrong(source: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        small.read(source, **options)
    assert words in str(caught.value)
    assert "rate= in hertz" in caught.value.accepted


def test_a_rate_that_contradicts_the_file_is_refused(recordings: dict[str, Path]) -> None:
    assert small.read(recordings["a.edf"], rate=1000).info["rate"] == 1000
    with pytest.raises(InputError, match="a file of 1000 Hz, but rate=500"):
        small.read(recordings["a.edf"], rate=500)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["float16", "float32", "float64", "int16", "int64", "uint8", "bool", "complex64", "U3"]),
        st.one_of(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12), st.tuples(st.just(8), st.integers(1, 30))),
    ),
    st.one_of(st.none(), st.integers(-5, 3000), st.floats(), st.text(max_size=3)),
    st.sampled_from(["V", "mV", "uV", "standardized", "volts"]),
    st.floats(),
)
def test_no_array_raises_anything_but_an_input_error(array: np.ndarray, rate: Any, unit: str, start: float) -> None:
    try:
        sample = small.read(array, rate=rate, unit=unit, start=start)
    except (InputError, OptionError):
        return
    assert sample.data.shape == array.shape
    assert np.isfinite(sample.data).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["a_raw.fif", "a.edf", "a.bdf", "a.set"]),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_damaged_recordings_raise_nothing_but_an_input_error(
    recordings: dict[str, Path], name: str, where: float, value: bytes, in_header: bool, cut: bool
) -> None:
    content = bytearray(recordings[name].read_bytes())
    at = int(where * (min(len(content), 2500) if in_header else len(content) - 1))
    content[at : at + len(value)] = value
    if cut:
        del content[at:]
    try:
        sample = small.read(bytes(content), format=name[-3:])
    except InputError:
        return
    assert sample.data.shape[0] == 8
    assert np.isfinite(sample.data).all()


# --- examples, options, pictures ---


def test_example_is_written_and_read_back(tmp_path: Path) -> None:
    sample = eeg.example(4)
    assert sample.data.shape == (128, 1000)
    assert len(set(sample.info["channels"])) == 128
    assert np.array_equal(sample.data, eeg.example(4).data)
    assert not np.array_equal(sample.data, eeg.example(5).data)
    back = eeg.read(eeg.write(sample, tmp_path, "example"))
    np.testing.assert_allclose(back.data, sample.data, rtol=1e-6)
    assert back.info == sample.info
    described = eeg.describe(back)
    assert described["channels"].startswith("128 (Fp1, Fpz, ")
    assert described["rate"] == "1000 Hz"
    assert 5 < float(described["rms"].removesuffix(" microvolts")) < 40
    assert "cut 20 to 460 ms after the start" in eeg.steps()
    few = EEG(channels=2, names=["Oz", "Nowhere"]).example()
    assert few.info["channels"] == ["Oz", "Nowhere"]
    assert EEG(channels=200).example().data.shape == (200, 1000)


def test_standardized_values_are_not_written_as_volts(tmp_path: Path) -> None:
    sample = eeg.read(inputs.eeg(128, 500), rate=1000, unit="standardized")
    assert eeg.describe(sample)["rms"].endswith("(standardized)")
    with pytest.raises(InputError, match="a sample in volts"):
        eeg.write(sample, tmp_path, "z")


def test_traces_are_drawn_with_names_and_scale() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    eeg.draw(eeg.example(), axes)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 16
    assert labels[0] == "Fp1"
    assert axes.get_xlabel() == "time (s)"
    assert any("microvolts" in text.get_text() for text in axes.texts)
    eeg.draw(eeg.read(inputs.eeg(128, 30), rate=1000, unit="standardized", start=0.029), Figure().add_subplot())


def test_options_travel_as_json() -> None:
    other = EEG(channels=2, names=["Oz", "Cz"], band=[5, 95], rate=500, window=[0, 1], samples=100, window_size=4, stride=4)
    assert EEG(**json.loads(json.dumps(other.options()))) == other
    assert other.options()["band"] == [5, 95]
    embed = other.build_embed(16, SimpleNamespace(patch_size=14))  # type: ignore[arg-type]
    assert embed(other.transform(other.example())[None]).shape == (1, 25, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 0},
        {"rate": -1},
        {"window": [0.4, 0.1]},
        {"window": 0.4},
        {"window": [0.1, 0.1001]},
        {"band": [5, 600]},
        {"band": [0, 10]},
        {"names": ["Fp1"]},
        {"names": "Fp1"},
        {"names": ["Fp1", "FP1."], "channels": 2},
        {"short": "pad"},
        {"standardize": "yes"},
        {"window_size": 600},
        {"samples": 3.5},
    ],
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        EEG(**options)


@pytest.mark.parametrize("options", [{"unit": "volts"}, {"start": "soon"}, {"epoch": 1.5}])
def test_bad_read_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        small.read(V, rate=1000, **options)
