"""EEG files as they are met: with pauses, in mixed units, with other signals beside the EEG, damaged, naming files elsewhere."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from typer.testing import CliRunner

from vitlens import EmbeddingSpace, EncoderSpec, ModelSpec, ViTLens, ViTSpec
from vitlens.batches import batches
from vitlens.cli.app import app
from vitlens.errors import InputError
from vitlens.modalities.eeg import EEG
from vitlens.zoo import Pretrained

NAMES = ("Fp1", "Fp2", "C3", "C4")
eeg = EEG(channels=4, names=NAMES)
WAVES = 20 * np.sin(2 * np.pi * np.outer([5, 7, 11, 13], np.arange(3000) / 1000))
"""Microvolts of four channels at 1 kHz."""


def edf(
    path: Path, *, labels: Sequence[str] = NAMES, units: Sequence[str] = ("uV",) * 4, onsets: Sequence[float] = (), plus: str = ""
) -> Path:
    """Three records of 1 s of `WAVES`, as EDF or (by the name) BDF; `onsets` are the records' true times."""
    bdf = path.suffix.lower() == ".bdf"
    width, most, kind = (3, 2**23, "BDF") if bdf else (2, 2**15, "EDF")
    signals = 5 if onsets else 4
    stamp = 30 // width
    first = b"\xffBIOSEMI" if bdf else b"0".ljust(8)
    head = [(80, "X X X X"), (80, "Startdate X X X X"), (8, "01.01.20"), (8, "00.00.00"), (8, 256 * (signals + 1))]
    head += [(44, plus or (f"{kind}+D" if onsets else "24BIT" if bdf else "")), (8, 3), (8, 1), (4, signals)]
    columns = [
        (16, [*labels, f"{kind} Annotations"]),
        (80, [""] * 5),
        (8, [*units, ""]),
        (8, [-25] * 4 + [-1]),
        (8, [25] * 4 + [1]),
    ]
    columns += [(8, [-most] * 5), (8, [most - 1] * 5), (80, [""] * 5), (8, [1000] * 4 + [stamp]), (32, [""] * 5)]
    head += [(size, value) for size, values in columns for value in values[:signals]]
    stored = np.rint((WAVES + 25) / 50 * (2 * most - 1) - most).astype("<i4")
    content = first + b"".join(str(value).encode("latin-1").ljust(size) for size, value in head)
    for record in range(3):
        rows = np.ascontiguousarray(stored[:, 1000 * record : 1000 * record + 1000])
        content += rows.view(np.uint8).reshape(4, 1000, 4)[..., :width].tobytes()
        content += (b"+%g\x14\x14" % onsets[record]).ljust(stamp * width, b"\0") if onsets else b""
    path.write_bytes(content)
    return path


def brainvision(folder: Path, *, name: str = "a.vhdr", data: str = "a.eeg", markers: str = "", comment: str = "") -> Path:
    """`WAVES` as BrainVision, float32 microvolts."""
    (folder / "a.eeg").write_bytes(WAVES.T.astype("<f4").tobytes())
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n[Marker Infos]\n"
        + markers
    )
    channels = "".join(f"Ch{i + 1}={label},,1,µV\n" for i, label in enumerate(NAMES))
    header = folder / name
    header.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={data}\nMarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=4\n"
        f"SamplingInterval=1000\n[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n{channels}{comment}",
        encoding="utf-8",
    )
    return header


def near(data: np.ndarray, first: int, stop: int) -> bool:
    """Whether volts are those of `WAVES` from sample `first` to `stop`."""
    return data.shape == (4, stop - first) and np.abs(1e6 * data - WAVES[:, first:stop]).max() < 0.01


# --- pauses ---


@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_a_pause_is_real_time_in_which_nothing_was_recorded(tmp_path: Path, kind: str) -> None:
    path = edf(tmp_path / f"pause.{kind}", onsets=(0, 101, 102))
    for start in (0, 0.3):
        assert near(eeg.read(path, start=start).data, 0, 1000)
    sample = eeg.read(path, start=101.2)
    assert near(sample.data, 1000, 3000)
    assert sample.info["start"] == pytest.approx(0.2)
    whole = eeg.read(edf(tmp_path / f"whole.{kind}"))
    assert near(whole.data, 0, 3000)
    window = EEG(channels=4, names=NAMES, standardize=False)
    a = window.transform(sample).numpy()
    b = window.transform(eeg.read(edf(tmp_path / f"whole.{kind}"), start=1.2)).numpy()
    np.testing.assert_allclose(a, b, atol=1e-9)
    for start in (1.2, 50, 100.999):
        with pytest.raises(InputError, match=r"lies in a gap of the recording: it holds 0 to 1 s, 101 to 103 s"):
            eeg.read(path, start=start)
    with pytest.raises(InputError, match="start 103 s is outside its 0 to 1 s, 101 to 103 s"):
        eeg.read(path, start=103)


def test_a_window_across_a_pause_is_refused_however_little_of_it_is_missing(tmp_path: Path) -> None:
    path = edf(tmp_path / "pause.edf", onsets=(0, 1.5, 2.5))
    for short in ("error", "stretch"):
        model = EEG(channels=4, names=NAMES, short=short)
        assert model.transform(model.read(path, start=0.54)).shape == (4, 512)
        for start in (0.55, 0.9):
            with pytest.raises(InputError, match="across a gap"):
                model.transform(model.read(path, start=start))


def test_records_that_follow_each_other_are_no_pause_whatever_their_name(tmp_path: Path) -> None:
    for name, onsets, plus in (("d", (0, 1, 2), ""), ("later", (7.25, 8.25, 9.25), ""), ("c", (0, 1, 2), "EDF+C")):
        sample = eeg.read(edf(tmp_path / f"{name}.edf", onsets=onsets, plus=plus))
        assert near(sample.data, 0, 3000)
        assert not sample.info.get("pieces")


def test_places_where_something_was_cut_out_are_pauses_too(tmp_path: Path) -> None:
    header = brainvision(
        tmp_path,
        markers="Mk1=New Segment,,1,1,0,20200101000000000000\n"
        "Mk2=New Segment,,1001,1,0,20200101000500000000\nMk3=Stimulus,S 1,1500,1,0\n",
    )
    assert near(eeg.read(header, start=0.1).data, 0, 1000)
    assert near(eeg.read(header, start=1.1).data, 1000, 3000)
    with mne.use_log_level("ERROR"):
        raw = mne.io.RawArray(WAVES * 1e-6, mne.create_info(list(NAMES), 1000.0, "eeg"))
        raw.set_annotations(mne.Annotations([0.9995, 2.0], [0, 0], ["boundary", "BAD boundary"]))
        raw.save(tmp_path / "cut_raw.fif")
    assert near(eeg.read(tmp_path / "cut_raw.fif", start=0.5).data, 0, 1000)
    assert near(eeg.read(tmp_path / "cut_raw.fif", start=1.5).data, 1000, 2000)
    assert near(eeg.read(tmp_path / "cut_raw.fif", start=2.5).data, 2000, 3000)


# --- units and channels ---


@pytest.mark.parametrize("unit", ["", "mmHg"])
@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_one_channel_of_another_unit_is_named(tmp_path: Path, kind: str, unit: str) -> None:
    path = edf(tmp_path / f"unit.{kind}", units=("uV", "uV", "uV", unit))
    with pytest.raises(InputError, match=r"C4 with deflections of 14 V beside others"):
        eeg.read(path)
    assert EEG(channels=3, names=NAMES[:3]).read(path).data.shape == (3, 3000)


def test_channels_in_several_units_that_the_file_states_are_right(tmp_path: Path) -> None:
    sample = eeg.read(edf(tmp_path / "units.edf", units=("uV", "uV", "µV", "uV")))
    assert near(sample.data, 0, 3000)
    values = WAVES.copy()
    values[3] *= 1e6
    with pytest.raises(InputError, match="channel number 4 with deflections"):
        EEG(channels=4).read(values * 1e-6, rate=1000)
    values[3] = WAVES[3] * 1e-4
    assert "C4 deflects 300 times less" in eeg.read(values * 1e-6, rate=1000, channels=list(NAMES)).info["remarks"][0]


@pytest.mark.parametrize(
    "labels",
    [
        ("Fp1", "EXG1", "Plet", "Temp"),
        ("Fp1", "Erg1", "Resp", "GSR1"),
        ("Fp1", "LEOG", "EMG chin", "ECG"),
        ("Fp1", "EOG left", "ROC-A1", "Status2"),
        ("Fp1", "EEG EXG8", "SpO2", "AUX1"),
    ],
)
def test_what_lies_beside_the_eeg_does_not_count_whatever_it_is_declared(tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"1 EEG channels \(Fp1\)"):
        EEG(channels=4).read(edf(tmp_path / "beside.edf", labels=labels))
    assert EEG(channels=1).read(edf(tmp_path / "beside.edf", labels=labels)).info["channels"] == ["Fp1"]


def test_channels_declared_as_something_else_do_not_count_whatever_they_are_called(tmp_path: Path) -> None:
    with mne.use_log_level("ERROR"):
        raw = mne.io.RawArray(
            WAVES * 1e-6, mne.create_info(["Fp1", "Fp2", "left", "right"], 1000.0, ["eeg", "eeg", "eog", "emg"])
        )
        raw.save(tmp_path / "typed_raw.fif")
    assert EEG(channels=2).read(tmp_path / "typed_raw.fif").info["channels"] == ["Fp1", "Fp2"]
    assert EEG(channels=1, names=["left"]).read(tmp_path / "typed_raw.fif").data.shape == (1, 3000)  # asked for by name


# --- BrainVision, EEGLAB, Neuroscan ---


def test_brainvision_by_any_spelling_of_its_names(tmp_path: Path) -> None:
    assert near(eeg.read(brainvision(tmp_path, name="A.VHDR", data="A.EEG")).data, 0, 3000)
    assert near(eeg.read(brainvision(tmp_path, name="a.vhdr", data="$b.eeg")).data, 0, 3000)
    for name in ("a.EDF", "a.BDF"):
        assert near(eeg.read(edf(tmp_path / name)).data, 0, 3000)


def test_a_comment_is_no_header(tmp_path: Path) -> None:
    comment = "[Comment]\nDataFile=elsewhere.eeg\nNumberOfChannels=77\nBinaryFormat=INT_16\nMarkerFile=../x.vmrk\n"
    assert near(eeg.read(brainvision(tmp_path, comment=comment)).data, 0, 3000)


def test_a_marker_one_sample_past_the_end_is_harmless(tmp_path: Path) -> None:
    assert near(eeg.read(brainvision(tmp_path, markers="Mk1=Stimulus,S 1,3001,1,0\n")).data, 0, 3000)
    with pytest.raises(InputError, match="truncated recording: 3000 samples of 3001 or more"):
        eeg.read(brainvision(tmp_path, markers="Mk1=Stimulus,S 1,3002,1,0\n"))


@pytest.mark.parametrize("data", ["../a.eeg", "{above}/a.eeg", "..\\a.eeg", "sub/../../a.eeg"])
def test_a_header_never_reads_outside_its_folder(tmp_path: Path, data: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    brainvision(tmp_path)
    header = brainvision(inner, data=data.format(above=tmp_path))
    with pytest.raises(InputError, match="outside its folder"):
        eeg.read(header)
    text = (
        header.read_text(encoding="utf-8")
        .replace("MarkerFile=a.vmrk", "MarkerFile=../a.vmrk")
        .replace(f"DataFile={data}", "DataFile=a.eeg")
    )
    header.write_text(text.format(above=tmp_path), encoding="utf-8")
    with pytest.raises(InputError, match="outside its folder"):
        eeg.read(header)


def eeglab(path: Path, data: Any, *, trials: int = 1) -> Path:
    from scipy.io import savemat

    places = np.array([(name, "") for name in NAMES], dtype=[("labels", object), ("type", object)])
    known = {
        "setname": "x",
        "nbchan": 4.0,
        "trials": float(trials),
        "pnts": 3000.0 / trials,
        "srate": 1000.0,
        "xmin": 0.0,
        "xmax": 2.999,
    }
    known |= {"data": data, "chanlocs": places, "event": [], "epoch": [], "icawinv": [], "icasphere": [], "icaweights": []}
    savemat(path, {"EEG": known}, appendmat=False)
    return path


def test_an_eeglab_set_never_reads_outside_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder in (tmp_path, inner):
        (folder / "a.fdt").write_bytes(WAVES.T.astype("<f4").tobytes())
    assert near(eeg.read(eeglab(inner / "a.set", "a.fdt")).data, 0, 3000)
    for trials in (1, 3):
        with pytest.raises(InputError, match="outside its folder"):
            eeg.read(eeglab(inner / "b.set", "../a.fdt", trials=trials))


def test_a_damaged_set_does_not_end_the_process(tmp_path: Path) -> None:
    path = eeglab(tmp_path / "damaged.set", WAVES.astype("f4"))
    content = bytearray(path.read_bytes())
    whole = eeg.read(path).data
    assert near(whole, 0, 3000)
    for at in range(200, 1200, 24):
        damaged = content.copy()
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with suppress(InputError):
            assert eeg.read(path).data.shape[0] == 4


def test_an_ant_recording_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "ant.cnt"
    path.write_bytes(b"RIFF" + struct.pack("<I", 1000) + b"CNT eeph" + bytes(1000))
    with pytest.raises(InputError, match=r"an ANT Neuro \(eeprobe\) recording, not one of Neuroscan"):
        eeg.read(path)


def test_a_file_that_is_no_neuroscan_recording_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.cnt"
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(InputError, match="no Neuroscan recording, by its first bytes"):
        eeg.read(path)


@pytest.mark.parametrize("kind", ["EDF", "BDF", "SET"])
def test_types_in_capitals_are_read_alike(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"small.{kind.lower()}"
    eeglab(path, WAVES.astype("f4")) if kind == "SET" else edf(path)
    assert near(eeg.read(path.rename(tmp_path / f"LARGE.{kind}")).data, 0, 3000)


def test_sections_beside_the_plan_of_a_brainvision_header_may_look_like_it(tmp_path: Path) -> None:
    header = brainvision(tmp_path)
    header.write_text(header.read_text() + "\n[User Infos]\nDataFile=/etc/passwd\nNumberOfChannels=77\nDataPoints=99999\n")
    assert near(eeg.read(header).data, 0, 3000)


# --- what is said of them ---


def test_remarks_of_the_reader_reach_the_batch(tmp_path: Path) -> None:
    path = edf(tmp_path / "pause.edf", onsets=(0, 101, 102))
    (batch,) = batches(eeg, [str(path), {"source": WAVES * 1e-6, "rate": 1000, "channels": list(NAMES)}], batch_size=2)
    assert batch.positions == [0, 1]
    assert list(batch.remarks) == [0]
    assert any("a recording with gaps: it holds 0 to 1 s, 101 to 103 s" in remark for remark in batch.remarks[0])
    assert "gaps" in eeg.describe(eeg.read(path))["remarks"]


def test_remarks_are_in_the_report_of_embed(tmp_path: Path) -> None:
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    vit = ViTSpec("small", config={"embed_dim": 16, "vision_cfg": vision, "text_cfg": {}})
    spec = ModelSpec("small", EmbeddingSpace("small", 16), (EncoderSpec("eeg", vit, {"channels": 4}),))
    ViTLens.from_state(Pretrained(spec, None, "small")).save_pretrained(tmp_path / "model")
    path, out = edf(tmp_path / "pause.edf", onsets=(0, 101, 102)), tmp_path / "out.npz"
    command = ["embed", str(path), "-o", str(out), "--model", str(tmp_path / "model"), "--device", "cpu"]
    plain = CliRunner().invoke(app, command, prog_name="vitlens")
    assert plain.exit_code == 0, plain.output
    assert "pause.edf: a recording with gaps: it holds 0 to 1 s, 101 to 103 s" in " ".join(plain.stderr.split())
    report = json.loads(CliRunner().invoke(app, [*command, "--overwrite", "--json"], prog_name="vitlens").stdout)
    assert {one["modality"] for one in report["remarks"]} == {"eeg"}
    assert any("a recording with gaps" in one["remark"] and one["item"].endswith("pause.edf") for one in report["remarks"])


def test_warnings_of_mne_are_remarks_and_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(edf(tmp_path / "a.edf").read_bytes())
    content[236:244] = b"-1".ljust(8)  # how many records: not yet known
    (tmp_path / "a.edf").write_bytes(content)
    remarks = eeg.read(tmp_path / "a.edf").info["remarks"]
    assert len(remarks) == len(set(remarks)) >= 1
    assert all("\n" not in remark for remark in remarks)
    assert capfd.readouterr() == ("", "")


def test_missing_markers_are_a_remark(tmp_path: Path) -> None:
    header = brainvision(tmp_path)
    (tmp_path / "a.vmrk").unlink()
    assert eeg.read(header).info["remarks"] == ["its marker file a.vmrk is not beside it: events and pauses are not known"]
    header.write_text(header.read_text(encoding="utf-8").replace("MarkerFile=a.vmrk\n", ""), encoding="utf-8")
    assert near(eeg.read(header).data, 0, 3000)


def test_info_shows_any_recording_whatever_a_model_takes(tmp_path: Path) -> None:
    shown = EEG().inspect(edf(tmp_path / "four.edf"))
    assert near(shown.data, 0, 3000)
    assert EEG().describe(shown)["channels"] == "4 (Fp1, Fp2, C3, C4)"
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "four.edf")], prog_name="vitlens")
    assert shown.exit_code == 0, shown.output
    for words in ("4 (Fp1, Fp2, C3, C4)", "1000 Hz", "3 s"):
        assert words in shown.output
    with pytest.raises(InputError, match="4 EEG channels"):
        EEG().read(tmp_path / "four.edf")


def test_memory_is_bounded_by_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITLENS_READ_GIB", "0.00005")
    with pytest.raises(InputError, match=r"4 channels of 3000 samples, which takes .*cut it into parts"):
        eeg.read(np.zeros((4, 3000)), rate=1000, channels=list(NAMES))
