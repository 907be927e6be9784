"""EEG of any montage: channels by name and place, splines for what is missing, refusals where there is too little to stand on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from vitlens.errors import InputError, OptionError
from vitlens.modalities.eeg import EEG
from vitlens.modalities.eeg_layouts import LAYOUTS
from vitlens.modalities.eeg_places import ten_five
from vitlens.zoo import all_cards, find_modality

MODEL = EEG(names="imagenet-eeg", standardize=False)
NAMES = LAYOUTS["imagenet-eeg"]
TEN_TWENTY = ["Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz", "P4", "P8", "O1", "O2"]
RATE = 500.0


def at(names: Sequence[str]) -> np.ndarray:
    return np.array([ten_five()[name.lower()] for name in names])


def field(places: np.ndarray, samples: int = 400) -> np.ndarray:
    """Microvolts, as volts, of a smooth potential over the head that changes with time."""
    time = np.arange(samples) / RATE
    x, y, z = places.T
    shapes = np.stack([x, y, z, x * y, y * z, x * x - y * y])
    waves = np.stack([np.sin(2 * np.pi * (2.0 + 3 * k) * time + k) for k in range(len(shapes))])
    return 2e-5 * shapes.T @ waves


def read(names: Sequence[str], data: np.ndarray | None = None, **options: Any) -> Any:
    return MODEL.read(field(at(names)) if data is None else data, rate=RATE, channels=list(names), **options)


def saved(path: Path, names: Sequence[str], data: np.ndarray, places: np.ndarray | None = None, bads: Sequence[str] = ()) -> Path:
    with mne.use_log_level("ERROR"):
        info = mne.create_info(list(names), RATE, "eeg")
        if places is not None:
            info.set_montage(mne.channels.make_dig_montage(dict(zip(names, places, strict=True)), coord_frame="head"))
        info["bads"] = list(bads)
        mne.io.RawArray(data, info).save(path, fmt="double")
    return path


def test_every_model_with_an_eeg_says_where_its_channels_sit() -> None:
    models = [name for name, card in all_cards().items() if any(one.modality == "eeg" for one in card.spec.encoders)]
    assert {"vitlens-l", "vitlens-l-eeg", "vitlens-tiny-random", "vitlens-toybox"} <= set(models)
    for model in models:
        eeg: Any = find_modality("eeg", model)
        assert len(eeg.names) == eeg.channels == 128
        assert eeg.places is not None or all(name.lower() in ten_five() for name in eeg.names)
        assert find_modality("eeg").__class__(**eeg.options()) == eeg
    assert NAMES[:2] + NAMES[31:38] + NAMES[127:] == ("Fp1", "Fp2", "PO10", "AF7", "AF3", "AF4", "AF8", "F5", "F1", "I2")
    assert len(LAYOUTS["things-eeg2"]) == 63 and "Fz" not in LAYOUTS["things-eeg2"]


@pytest.mark.parametrize(
    ("names", "places"), [("nowhere", None), (["Fp1"], [[0, 0, 0]]), (["Fp1"], [[0, 0, 1], [1, 0, 0]]), (None, [[0, 0, 1]])]
)
def test_names_and_places_that_make_no_sense_are_refused(names: Any, places: Any) -> None:
    with pytest.raises(OptionError, match=r"eeg: (names|places)"):
        EEG(channels=1, names=names, places=places)


# --- what is missing is made ---


def test_missing_channels_are_made_as_they_would_have_been_measured() -> None:
    true = field(at(NAMES))
    for count, close in ((64, 0.03), (19, 0.13)):
        names = TEN_TWENTY if count == 19 else NAMES[:64]
        sample = read(names)
        assert sample.data.shape == (128, 400) and sample.info["channels"] == list(NAMES)
        assert np.abs(sample.data - true).max() < close * np.abs(true).max()
        facts = sample.info["montage"]
        assert (facts["measured"], len(facts["made"]), facts["electrodes"]) == (count, 128 - count, count)
        for i, name in enumerate(NAMES):
            if name in names:
                np.testing.assert_array_equal(sample.data[i], true[i].astype(np.float32))
    assert sample.info["remarks"][0].startswith(
        "19 of 128 channels measured, 109 made of 19 electrodes by spherical splines; the far"
    )
    assert "is 5 cm from one" in MODEL.describe(sample)["electrodes"]


def test_another_order_spelling_or_reference_changes_nothing() -> None:
    data, expected = field(at(TEN_TWENTY)), read(TEN_TWENTY).data
    order = np.random.default_rng(0).permutation(len(data))
    np.testing.assert_allclose(read([TEN_TWENTY[i] for i in order], data[order]).data, expected, atol=1e-10)
    old = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
    for spelling in ("EEG {}-REF", "{}.", "eeg {}-LE", "POL {}-A1A2", "{}-Cz", "{}-(M1+M2)/2"):
        names = [spelling.format(old.get(name, name).upper()) for name in TEN_TWENTY]
        np.testing.assert_allclose(read(names, data).data, expected, atol=1e-10)
    moved = 3e-5 * np.sin(np.arange(400) / 9)
    np.testing.assert_allclose(read(TEN_TWENTY, data + moved).data, expected + moved, atol=1e-9)


def test_numbered_caps_are_known_by_mne_s_montages() -> None:
    true = field(at(NAMES))
    biosemi, egi = [f"{c}{i}" for c in "ABCD" for i in range(1, 33)], [f"E{i}" for i in range(1, 129)]
    for names, montage, close in ((biosemi, "biosemi128", 0.25), (egi, "GSN-HydroCel-128", 0.45)):
        with mne.use_log_level("ERROR"):
            cap = mne.channels.make_standard_montage(montage)
        places = np.array([cap.get_positions()["ch_pos"][name] for name in names])
        data = field((places - places.mean(0) * [1, 1, 0]) / np.linalg.norm(places, axis=1, keepdims=True))
        sample = read(names, data)
        assert f"as those of the cap {montage}" in sample.info["remarks"][1]
        assert np.abs(sample.data - true).mean() < close * np.abs(true).mean()
        np.testing.assert_allclose(read(names, data, montage=montage).data, sample.data, atol=1e-9)
    small = [f"A{i}" for i in range(1, 33)]  # the 32 of BioSemi are places of the 10-20 system
    with mne.use_log_level("ERROR"):
        called = mne.channels.make_standard_montage("biosemi32").ch_names
    np.testing.assert_allclose(read(small, field(at(called))).data, read(called).data, atol=1e-10)


def test_electrodes_without_names_sit_where_their_file_says(tmp_path: Path) -> None:
    places = at(NAMES[:64])
    centre, unnamed = np.array([0.001, 0.012, 0.042]), [f"EEG {i:03d}" for i in range(64)]
    path = saved(tmp_path / "unnamed_raw.fif", unnamed, field(places), 0.09 * places + centre)
    np.testing.assert_allclose(MODEL.read(path).data, read(NAMES[:64]).data, atol=1e-7)
    with pytest.raises(InputError, match=r"0 electrodes at known places, 64 channels bad or at no known place \(EEG 000, "):
        read(unnamed, field(places))
    given = dict(zip(unnamed, (0.09 * places + centre).tolist(), strict=True))
    np.testing.assert_allclose(read(unnamed, field(places), montage=given).data, read(NAMES[:64]).data, atol=1e-7)
    np.testing.assert_allclose(MODEL.read(path, channels=NAMES[:64]).data, read(NAMES[:64]).data, atol=1e-7)


def test_turned_positions_are_turned_back_and_wrong_ones_are_not_believed(tmp_path: Path) -> None:
    expected, places = read(TEN_TWENTY).data, 0.095 * at(TEN_TWENTY)
    turned = places @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(
        MODEL.read(saved(tmp_path / "a_raw.fif", TEN_TWENTY, field(at(TEN_TWENTY)), turned)).data, expected, atol=1e-7
    )
    strange = MODEL.read(saved(tmp_path / "b_raw.fif", TEN_TWENTY, field(at(TEN_TWENTY)), np.roll(places, 5, axis=0)))
    np.testing.assert_allclose(strange.data, expected, atol=1e-7)
    assert "positions of electrodes do not fit their names" in strange.info["remarks"][1]


def test_bad_channels_count_as_missing(tmp_path: Path) -> None:
    data = field(at(NAMES))
    data[:2] *= 50
    sample = MODEL.read(saved(tmp_path / "bad_raw.fif", NAMES, data, bads=["Fp1", "Fp2"]))
    assert sample.info["montage"]["made"] == ["Fp1", "Fp2"]
    assert "left out, bad: Fp1, Fp2" in sample.info["remarks"]
    assert np.abs(sample.data[:2] - field(at(NAMES[:2]))).max() < 1e-6
    np.testing.assert_allclose(read(NAMES, data, bads=["fp1", "FP2."]).data, sample.data, atol=1e-9)
    assert "no channel is called as bads= says: x1" in read(NAMES, bads=["X1"]).info.get("remarks", [])


# --- what is refused ---


def test_too_little_to_stand_on_is_refused_unless_somebody_insists() -> None:
    with pytest.raises(
        InputError, match=r"3 electrodes at known places \(C3, Cz, C4\): too few to make 125 channels.*sparse=True"
    ):
        read(["C3", "Cz", "C4"])
    few = ["Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2"]
    with pytest.raises(
        InputError, match=r"8 electrodes, and 40 of the .* farther than 6 cm .*the farthest, FT10: 9\.8 cm\).*sparse=True"
    ):
        read(few)
    assert read(few, sparse=True).info["montage"]["farthest_cm"] == 9.8
    assert read(["C3"], sparse=True).data.shape == (128, 400)


def test_bipolar_channels_are_refused_by_name() -> None:
    pairs = ["Fp1-F7", "F7-T3", "T3-T5", "T5-O1", "Fp2-F8", "F8-T4", "T4-T6", "T6-O2"]
    with pytest.raises(
        InputError, match=r"0 electrodes at known places, 8 differences of two electrodes \(Fp1-F7, F7-T3, .*too few"
    ):
        read(pairs, field(at(NAMES[:8])))
    names = [*TEN_TWENTY, "Fp1-F7"]
    sample = read(names, field(at([*TEN_TWENTY, "Iz"])))
    np.testing.assert_allclose(sample.data, read(TEN_TWENTY).data, atol=1e-9)
    assert "left out, differences of two electrodes: Fp1-F7" in sample.info["remarks"]


def test_numbers_of_an_unknown_cap_are_no_places_of_the_10_20_system() -> None:
    names = [f"{letter}{i}" for letter in "ABCDEFGH" for i in range(1, 17)]  # C3, F3 and F4 are among them
    with pytest.raises(InputError, match=r"0 electrodes at known places, 128 channels bad or at no known place .*channels="):
        read(names, np.resize(field(at(NAMES)), (128, 400)))


def test_channels_twice_or_of_no_known_place_are_refused() -> None:
    with pytest.raises(InputError, match="more than one channel T7"):
        read([*TEN_TWENTY, "T3"], field(at([*TEN_TWENTY, "T9"])))
    with pytest.raises(OptionError, match="eeg: montage"):
        read(TEN_TWENTY, montage="standard_1")
    with pytest.raises(OptionError, match="eeg: bads must be a list"):
        read(TEN_TWENTY, bads="Fp1")


def test_as_many_rows_as_the_model_has_channels_are_its_channels() -> None:
    data = field(at(NAMES))
    unnamed, told = MODEL.read(data, rate=RATE), MODEL.read(data, rate=RATE, channels="model")
    for sample in (unnamed, told):
        np.testing.assert_array_equal(sample.data, data.astype(np.float32))
        assert sample.info["channels"] == list(NAMES)
    assert [text for text in unnamed.info["remarks"] if "taken as the model's, Fp1, Fp2, F7 ... in its order" in text]
    assert not told.info.get("remarks")
    with pytest.raises(InputError, match="19 rows without names, but the model orders its 128 channels by name"):
        MODEL.read(data[:19], rate=RATE)
    with pytest.raises(InputError, match="19 channels, but channels='model' and a model that takes 128 channels"):
        MODEL.read(data[:19], rate=RATE, channels="model")


# --- reference ---


def test_average_reference() -> None:
    sample = read(NAMES, field(at(NAMES)) + 1e-4)
    average = EEG(names="imagenet-eeg", standardize=False, reference="average")
    window = average.transform(sample)
    assert window.mean(0).abs().max() < 1e-9 < MODEL.transform(sample).mean(0).abs().max()
    np.testing.assert_allclose(MODEL.transform(read(NAMES, field(at(NAMES)) + 1e-4, reference="average")), window, atol=1e-10)
    assert any("average reference" in step for step in average.steps()) and not any("average" in step for step in MODEL.steps())
    with pytest.raises(InputError, match="no average reference any more"):
        average.transform(read(NAMES, 1e5 * field(at(NAMES)), unit="standardized"))
